"""Network slimming (arXiv 1708.06519): ResNet-20 on the digits, half the MACs.

Like masksparsity_r20_digits, but with one penalty on all scales instead of two penalties, for the
same number of epochs.
"""

_base_ = '_base_/r20_digits.py'

stages = [
    dict(type='Train', name='baseline', epochs=8, row='baseline'),
    dict(
        type='Train',
        name='global_sparsity',
        epochs=12,
        row='sparse',
        regularizer=dict(type='GlobalSparsity', strength=dict(reach=2.5)),
    ),
    dict(
        type='SelectMask',
        source=dict(type='BNScale', budget=dict(type='Macs', keep=0.5)),
    ),
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
