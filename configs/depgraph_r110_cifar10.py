"""DepGraph (arXiv 2301.12900): ResNet-110 on CIFAR-10, what MaskSparsity removes in the paper."""

_base_ = ['_base_/r110_cifar10.py', '_recipes_/depgraph.py']

stages = _base_.stages
stages[2].source.budget = _base_.budget
