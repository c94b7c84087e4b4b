"""Group sparsity of DepGraph (arXiv 2301.12900): ResNet-20 on hard MNIST images."""

_base_ = ['_base_/r20_mnist5k_hard.py', '_recipes_/depgraph.py']

stages = _base_.stages
stages[2].source.budget = _base_.budget
