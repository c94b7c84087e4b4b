"""L1 norms of filters (arXiv 1608.08710): VGG-16-BN on CIFAR-10, half the MACs."""

_base_ = ['_base_/vgg16bn_cifar10.py', '_recipes_/l1.py']

stages = _base_.stages
stages[1].source.budget = _base_.budget
