"""What an evaluation reads: the splits of a cache, the rows of its table, the protocol of a
benchmark's card and whether a split fits it, and where the videos are. It may import config of its
stage, and data_manifests, extract and align of the earlier stages.
"""
