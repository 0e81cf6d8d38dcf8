"""What a step minimises: the contrastive terms of the levels and the losses of the tasks, pure
functions of a batch and the model. It may import loss_config, config, model and data of its stage,
and extract of the earlier stages.
"""
