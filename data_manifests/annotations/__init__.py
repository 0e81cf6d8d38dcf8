"""What all importers share: official annotation files read with every fault noted, the rows of a
dataset while they are collected, and a ledger of what was read, kept and left out. It may import
core, cards and tables of its stage.
"""
