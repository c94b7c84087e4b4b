"""FPGM (arXiv 1811.00250): MobileNetV2 on ImageNet, half the MACs."""

_base_ = ['_base_/mobilenetv2_in1k.py', '_recipes_/fpgm.py']

stages = _base_.stages
stages[1].source.budget = _base_.budget
