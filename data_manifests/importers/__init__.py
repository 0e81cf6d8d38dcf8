"""One reader per family of official formats: official files into clips, texts and questions. It may
import core, cards and annotations of its stage.
"""
