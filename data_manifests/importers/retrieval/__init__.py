"""Importers of datasets of captions and paragraphs: official files into clips and texts. It may
import core, cards and annotations of its stage.
"""
