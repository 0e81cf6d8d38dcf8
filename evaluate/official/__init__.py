"""The benchmarks' own scorers: official prediction and annotation files read strictly, and each
dataset's numbers as its authors define them. It may import scores of its stage, and data_manifests
and extract of the earlier stages.
"""
