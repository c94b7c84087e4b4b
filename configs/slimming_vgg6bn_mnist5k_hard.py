"""Network slimming (arXiv 1708.06519): a small VGG on hard MNIST images."""

_base_ = ['_base_/vgg6bn_mnist5k_hard.py', '_recipes_/slimming.py']

stages = _base_.stages
stages[2].source.budget = _base_.budget
