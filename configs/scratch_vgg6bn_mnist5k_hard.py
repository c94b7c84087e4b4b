"""Training from scratch (arXiv 1810.05270): a small VGG on hard MNIST images."""

_base_ = ['_base_/vgg6bn_mnist5k_hard.py', '_recipes_/scratch.py']

stages = _base_.stages
stages[1].source.budget = _base_.budget
