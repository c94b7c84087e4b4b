"""MaskSparsity (arXiv 2201.06776): MobileNetV2 on ImageNet, half the MACs.

The schedule is that of mmpretrain, and the penalties are those of the recipe. It needs a total
batch of 256, as 8 GPUs x 32 images.
"""

_base_ = ['_base_/mobilenetv2_in1k.py', '_recipes_/masksparsity.py']

stages = _base_.stages
stages[2].source.update(reduction='vote', budget=_base_.budget)
