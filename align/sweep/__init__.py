"""Many runs on one cache: which settings and seeds, the processes that train them, and the
leaderboard of their results. It may import config, runs, data and trainer of its stage, and
data_manifests and extract of the earlier stages.
"""
