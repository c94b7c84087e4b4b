"""FPGM (arXiv 1811.00250): VGG-16-BN on CIFAR-10, half the MACs."""

_base_ = ['_base_/vgg16bn_cifar10.py', '_recipes_/fpgm.py']

stages = _base_.stages
stages[1].source.budget = _base_.budget
