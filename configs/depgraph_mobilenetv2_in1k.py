"""DepGraph (arXiv 2301.12900): MobileNetV2 on ImageNet, half the MACs."""

_base_ = ['_base_/mobilenetv2_in1k.py', '_recipes_/depgraph.py']

stages = _base_.stages
stages[2].source.budget = _base_.budget
