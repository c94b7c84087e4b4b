"""DepGraph (arXiv 2301.12900): ResNet-50 on ImageNet, as much as MaskSparsity."""

_base_ = ['_base_/r50_in1k.py', '_recipes_/depgraph.py']

stages = _base_.stages
stages[2].source.budget = _base_.budget
stages[-2].epochs = '225%'  # 400 epochs in all, as masksparsity_r50_in1k
