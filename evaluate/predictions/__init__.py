"""Our own predictions of a split, in the official format of the benchmark. It may import config,
scores, inputs, official and tasks of its stage, and data_manifests, extract and align of the
earlier stages.
"""
