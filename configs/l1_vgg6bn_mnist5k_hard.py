"""L1 norms of filters (arXiv 1608.08710): a small VGG on hard MNIST images."""

_base_ = ['_base_/vgg6bn_mnist5k_hard.py', '_recipes_/l1.py']

stages = _base_.stages
stages[1].source.budget = _base_.budget
