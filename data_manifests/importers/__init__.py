"""Readers of official annotation files, one file per family of formats, in a folder for each kind
of task.
"""
