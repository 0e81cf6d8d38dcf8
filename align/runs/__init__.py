"""The run folder: checkpoints and metrics that a training leaves on disk, the state from which a
killed run goes on, and the callbacks that watch it. It may import config and model of its stage,
and data_manifests of the earlier stages.
"""
