"""Network slimming (arXiv 1708.06519): ResNet-20 on hard MNIST images."""

_base_ = ['_base_/r20_mnist5k_hard.py', '_recipes_/slimming.py']

stages = _base_.stages
stages[2].source.budget = _base_.budget
