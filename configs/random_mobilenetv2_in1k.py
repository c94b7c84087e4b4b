"""Random channels: MobileNetV2 on ImageNet, half the MACs."""

_base_ = ['_base_/mobilenetv2_in1k.py', '_recipes_/random.py']

stages = _base_.stages
stages[1].source.budget = _base_.budget
