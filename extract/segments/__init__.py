"""Time within a clip: the instants at which frames are sampled, the rules that cut a clip into
segments, shots, and the features pooled over them. It may import cache of its stage, and
data_manifests of the earlier stages.
"""
