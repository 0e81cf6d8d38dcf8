"""The feature cache on disk: its contract, the store that reads it, and the writer that commits
shards whole or not at all. It knows nothing of videos or models; later stages import the contract
and the read side from here. It may import data_manifests of the earlier stages.
"""
