"""The same share of every group: ResNet-50 on ImageNet, as much as MaskSparsity."""

_base_ = ['_base_/r50_in1k.py', '_recipes_/uniform.py']

stages = _base_.stages
stages[1].source.budget = _base_.budget
stages[-2].epochs = '300%'  # 400 epochs in all, as masksparsity_r50_in1k
