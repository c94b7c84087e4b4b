"""L1 norms of filters (arXiv 1608.08710): ResNet-20 on hard MNIST images."""

_base_ = ['_base_/r20_mnist5k_hard.py', '_recipes_/l1.py']

stages = _base_.stages
stages[1].source.budget = _base_.budget
