"""Filters near the geometric median (arXiv 1811.00250): ResNet-20 on hard MNIST images."""

_base_ = ['_base_/r20_mnist5k_hard.py', '_recipes_/fpgm.py']

stages = _base_.stages
stages[1].source.budget = _base_.budget
