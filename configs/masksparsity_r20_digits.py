"""MaskSparsity (arXiv 2201.06776): ResNet-20 on the digits, half the MACs.

The stages train the network, select unimportant channels under a penalty on all channels, bring
only these channels to zero, cut them, recalibrate batch norms and fine-tune.
"""

_base_ = '_base_/r20_digits.py'

stages = [
    dict(type='Train', name='baseline', epochs=8, row='baseline'),
    dict(
        type='Train',
        name='global_sparsity',
        epochs=6,
        regularizer=dict(type='GlobalSparsity', strength=dict(reach=1.0)),
    ),
    dict(
        type='SelectMask',
        source=dict(type='BNScale', budget=dict(type='Macs', keep=0.5)),
    ),
    dict(
        type='Train',
        name='mask_sparsity',
        epochs=6,
        row='sparse',
        regularizer=dict(type='MaskSparsity', strength=dict(reach=20.0)),
    ),
    # A silenced channel still adds its bias, which the paper leaves; Prune gives it to the next
    dict(type='Prune'),
    dict(type='Calibrate'),
    dict(
        type='Train',
        name='finetune',
        epochs=6,
        row='finetuned',
        optim_wrapper=dict(optimizer=dict(lr=0.02)),
    ),
    dict(type='Report'),
]
