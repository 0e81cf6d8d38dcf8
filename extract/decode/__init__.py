"""From a video file or a folder of images to preprocessed pictures: the decoders and their
protocol, containers, orientation and completeness, and the processes that decode ahead. It loads
no torch, so that decoding processes stay small. It may import cache, segments and config of its
stage, and data_manifests of the earlier stages.
"""
