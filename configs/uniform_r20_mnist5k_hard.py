"""The same share of every group, by L1 norms: ResNet-20 on hard MNIST images."""

_base_ = ['_base_/r20_mnist5k_hard.py', '_recipes_/uniform.py']

stages = _base_.stages
stages[1].source.budget = _base_.budget
