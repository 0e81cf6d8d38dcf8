"""From a card and its official files to a manifest: the importer that the card names, the matching
of video files, the build itself, and the export to the files of other tools. It may import core,
cards, tables, annotations and importers of its stage.
"""
