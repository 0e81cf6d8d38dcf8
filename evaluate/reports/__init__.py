"""What an evaluation leaves for people and programs: results.json, tables, comparisons of reports,
and the HTML page with its figures. It may import config, scores, inputs, tasks, statistics and
evaluation of its stage, and data_manifests and extract of the earlier stages.
"""
