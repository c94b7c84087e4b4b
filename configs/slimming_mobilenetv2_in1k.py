"""Network slimming (arXiv 1708.06519): MobileNetV2 on ImageNet, half the MACs."""

_base_ = ['_base_/mobilenetv2_in1k.py', '_recipes_/slimming.py']

stages = _base_.stages
stages[2].source.budget = _base_.budget
