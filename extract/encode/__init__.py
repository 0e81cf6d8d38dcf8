"""Frozen backbones at work: models and their weights, devices, text tokens, and batches that turn
pictures and texts into the features of shards. It may import cache, segments, config, decode and
planning of its stage, and data_manifests of the earlier stages.
"""
