"""What is trained: the heads for videos and texts, the heads of the tasks, and the scores of the
levels between them. It may import head_config, loss_config and config of its stage, and
data_manifests of the earlier stages.
"""
