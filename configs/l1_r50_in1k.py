"""L1 norms of filters (arXiv 1608.08710): ResNet-50 on ImageNet, as much as MaskSparsity."""

_base_ = ['_base_/r50_in1k.py', '_recipes_/l1.py']

stages = _base_.stages
stages[1].source.budget = _base_.budget
stages[-2].epochs = '300%'  # 400 epochs in all, as masksparsity_r50_in1k
