"""Numbers on a validation split that choose the weights of a run: recall of the levels, and the
accuracies of the tasks. It may import loss_config, config, model, runs, data and objective of its
stage, and data_manifests and extract of the earlier stages.
"""
