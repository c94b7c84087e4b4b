"""MaskSparsity (arXiv 2201.06776): ResNet-50 on ImageNet, with a mask file of the authors.

As masksparsity_r50_in1k, but the masks come from CASIA-IVA-Lab/MaskSparsity, not from a training.
Put one of its two files that fit ResNet-50 into data/masksparsity:
- paper/imagenet_mask_sparsity/prune_ratio_0.30/lambda_0.0002_th-0.001_flops70.mask
  leaves 2,862,060,890 MACs, and is the default;
- paper/imagenet_uniform/prune_ratio_0.5/0.5_uniform.mask leaves 1,853,261,483 MACs:
  --cfg-options stages.1.source.path=data/masksparsity/0.5_uniform.mask
The third file, prune_ratio_0.51/flops50.mask, is refused: its layers are those of a network that
was pruned before, and neither that network nor its masks were released.

The channels of a mask file are those of the authors' baseline. With their weights (a link in their
README), replace the first stage: docs/masksparsity.md. Otherwise the file is a choice of widths.
"""

_base_ = '_base_/r50_in1k.py'

# The released code keeps at least one channel of each layer, and widths of any size.
graph = dict(_delete_=True, limits=dict(round_to=1))

stages = [
    dict(type='Train', name='baseline', row='baseline'),
    dict(
        type='SelectMask',
        source=dict(
            type='MaskFile',
            path='data/masksparsity/lambda_0.0002_th-0.001_flops70.mask',
            rename='pycls->mmpretrain',
        ),
    ),
    dict(
        type='Train',
        name='mask_sparsity',
        row='sparse',
        regularizer=dict(type='MaskSparsity', strength=5e-4),
    ),
    dict(
        type='SelectMask',
        name='select_again',
        source=dict(type='BNScale', reduction='vote', budget=dict(type='Threshold', value=0.01)),
    ),
    dict(type='Prune'),
    dict(
        type='Train',
        name='finetune',
        row='finetuned',
        optim_wrapper=dict(optimizer=dict(lr=5e-4)),
    ),
    dict(type='Report'),
]
