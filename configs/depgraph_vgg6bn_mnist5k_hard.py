"""Group sparsity of DepGraph (arXiv 2301.12900): a small VGG on hard MNIST images."""

_base_ = ['_base_/vgg6bn_mnist5k_hard.py', '_recipes_/depgraph.py']

stages = _base_.stages
stages[2].source.budget = _base_.budget
