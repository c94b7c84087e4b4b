"""Training from scratch (arXiv 1810.05270): MobileNetV2 on ImageNet, half the MACs."""

_base_ = ['_base_/mobilenetv2_in1k.py', '_recipes_/scratch.py']

stages = _base_.stages
stages[1].source.budget = _base_.budget
