"""How sure the numbers are: bootstrap intervals over queries and seeds, paired tests, and the
summaries of rows. It may import config, scores, indexes and tasks of its stage, and data_manifests
and extract of the earlier stages.
"""
