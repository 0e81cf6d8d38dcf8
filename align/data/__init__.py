"""The features that a run trains on: splits in memory or mapped, which pairs attract and repel,
the items of the tasks, and batches that are gathered by index. It may import loss_config, config,
runs and distributed of its stage, and data_manifests and extract of the earlier stages.
"""
