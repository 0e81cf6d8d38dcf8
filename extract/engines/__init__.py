"""Where the work is done: one protocol, this machine's devices and processes, or the workers of a
Ray cluster. It may import cache, config, decode, planning and encode of its stage, and
data_manifests of the earlier stages.
"""
