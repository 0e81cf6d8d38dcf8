"""Free-text search: the command mlalign-search, its page, and players that start at a moment. It
may import config, scores, inputs, indexes, tasks and reports of its stage, and data_manifests,
extract and align of the earlier stages.
"""
