"""MaskSparsity (arXiv 2201.06776): ResNet-110 on CIFAR-10, as much as in the paper.

The paper removes 63.03 % of the FLOPs and 60.34 % of the parameters without a loss of accuracy. Its
settings for CIFAR-10 were not released: the schedule is that of mmpretrain, and the penalties are
those of the recipe. Coupled layers vote, as in the released code.
"""

_base_ = ['_base_/r110_cifar10.py', '_recipes_/masksparsity.py']

stages = _base_.stages
stages[2].source.update(reduction='vote', budget=_base_.budget)
