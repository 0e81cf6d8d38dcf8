"""A procedural dataset: scenes drawn at random from a seed, their pictures as mp4 files, and their
exact captions, spans and questions. It may import core and tables of its stage.
"""
