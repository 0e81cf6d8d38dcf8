"""A benchmark of datasets, backbones and runs from one plan: its steps, the records of what is
done, and the leaderboard. It may import inputs, statistics and reports of its stage, and
data_manifests, extract and align of the earlier stages.
"""
