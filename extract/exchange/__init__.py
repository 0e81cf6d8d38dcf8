"""Features from other tools into a cache, and the features of a cache as other tools' files; with
the commands import and export. It may import cache, segments, decode, planning, encode,
maintenance and cache_settings of its stage, and data_manifests of the earlier stages.
"""
