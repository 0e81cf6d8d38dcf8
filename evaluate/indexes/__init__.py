"""FAISS indexes: nearest neighbours, indexes kept beside the features, clips found by them, and
what an approximate index costs. It may import config and scores of its stage, and data_manifests
and extract of the earlier stages.
"""
