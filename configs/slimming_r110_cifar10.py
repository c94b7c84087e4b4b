"""Network slimming (arXiv 1708.06519): ResNet-110 on CIFAR-10, as much as MaskSparsity."""

_base_ = ['_base_/r110_cifar10.py', '_recipes_/slimming.py']

stages = _base_.stages
stages[2].source.budget = _base_.budget
