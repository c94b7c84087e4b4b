"""The same share of every group, by L1 norms: a small VGG on hard MNIST images."""

_base_ = ['_base_/vgg6bn_mnist5k_hard.py', '_recipes_/uniform.py']

stages = _base_.stages
stages[1].source.budget = _base_.budget
