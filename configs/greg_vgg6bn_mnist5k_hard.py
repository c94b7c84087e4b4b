"""Growing regularization (GReg-1, arXiv 2012.09243): a small VGG on hard MNIST images."""

_base_ = ['_base_/vgg6bn_mnist5k_hard.py', '_recipes_/greg.py']

stages = _base_.stages
stages[1].source.budget = _base_.budget
