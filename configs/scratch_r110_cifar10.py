"""Training from scratch (arXiv 1810.05270): ResNet-110 on CIFAR-10, as much as MaskSparsity."""

_base_ = ['_base_/r110_cifar10.py', '_recipes_/scratch.py']

stages = _base_.stages
stages[1].source.budget = _base_.budget
