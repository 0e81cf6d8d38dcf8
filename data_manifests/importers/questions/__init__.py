"""Importers of datasets of questions: official files into clips and questions, multiple choice or
open-ended. It may import core, cards, annotations and importers.moments of its stage.
"""
