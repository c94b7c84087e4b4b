"""MaskSparsity (arXiv 2201.06776): ResNet-56 on CIFAR-10, half the MACs.

The settings of the paper for CIFAR-10 were not released: the schedule is that of mmpretrain, and
the penalties are those of the recipe. Coupled layers vote, as in the released code.
"""

_base_ = ['_base_/r56_cifar10.py', '_recipes_/masksparsity.py']

stages = _base_.stages
stages[2].source.update(reduction='vote', budget=_base_.budget)
