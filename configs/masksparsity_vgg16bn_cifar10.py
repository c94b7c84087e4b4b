"""MaskSparsity (arXiv 2201.06776): VGG-16-BN on CIFAR-10, half the MACs.

The schedule is that of mmpretrain, and the penalties are those of the recipe.
"""

_base_ = ['_base_/vgg16bn_cifar10.py', '_recipes_/masksparsity.py']

stages = _base_.stages
stages[2].source.update(reduction='vote', budget=_base_.budget)
