"""From vectors to numbers per query: similarities, exact ranks in blocks, metrics, normalised
scores, overlaps of spans, and average precision. It may import config of its stage, and
data_manifests and extract of the earlier stages.
"""
