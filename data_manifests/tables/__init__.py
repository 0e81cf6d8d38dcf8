"""The tables of a dataset: their schema, the strict reading of manifest folders, folders of videos
and single tables, and the rules that rows must keep. It may import core of its stage.
"""
