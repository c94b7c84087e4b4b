"""Training from scratch (arXiv 1810.05270): ResNet-50 on ImageNet, as much as MaskSparsity."""

_base_ = ['_base_/r50_in1k.py', '_recipes_/scratch.py']

stages = _base_.stages
stages[1].source.budget = _base_.budget
stages[-2].epochs = '400%'  # as many as masksparsity_r50_in1k trains in all
