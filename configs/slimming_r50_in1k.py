"""Network slimming (arXiv 1708.06519): ResNet-50 on ImageNet, as much as MaskSparsity."""

_base_ = ['_base_/r50_in1k.py', '_recipes_/slimming.py']

stages = _base_.stages
stages[2].source.budget = _base_.budget
stages[-2].epochs = '150%'  # 400 epochs in all, as masksparsity_r50_in1k
