"""Commands on a cache that exists: what is in it, whether all of it is sound, several caches as
one, and segments cut anew without decoding. It may import cache, segments and planning of its
stage, and data_manifests of the earlier stages.
"""
