"""What a run is asked to extract and how a cache remembers it, what of it is new, changed or
missing, how it is shared among jobs, and how a run shows and records its progress. It may import
cache, segments, config and decode of its stage, and data_manifests of the earlier stages.
"""
