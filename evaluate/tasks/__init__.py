"""The tasks of an evaluation: each scores the queries of a split with a run or with the backbone
as it is; the registry says which tasks a split has. It may import config, scores, indexes and
official of its stage, and data_manifests, extract and align of the earlier stages.
"""
