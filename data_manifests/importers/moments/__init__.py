"""Importers of datasets of moments: official files into clips and texts with spans. It may import
core, cards and annotations of its stage.
"""
