"""Random channels: ResNet-110 on CIFAR-10, what MaskSparsity removes in the paper."""

_base_ = ['_base_/r110_cifar10.py', '_recipes_/random.py']

stages = _base_.stages
stages[1].source.budget = _base_.budget
