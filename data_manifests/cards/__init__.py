"""Benchmark cards: what a benchmark is, where its official files are, how its numbers are made,
and the cards as pages for readers. The YAML files are in data_manifests/datasets. It may import
core of its stage.
"""
