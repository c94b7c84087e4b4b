"""Network slimming (arXiv 1708.06519): VGG-16-BN on CIFAR-10, half the MACs."""

_base_ = ['_base_/vgg16bn_cifar10.py', '_recipes_/slimming.py']

stages = _base_.stages
stages[2].source.budget = _base_.budget
