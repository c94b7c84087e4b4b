"""Network slimming with compensation: ResNet-20 on the digits, half the MACs and params.

The mean outputs of removed channels are added to the biases of later layers, without training.
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
        source=dict(
            type='BNScale',
            budget=[dict(type='Macs', keep=0.5), dict(type='Params', keep=0.5)],
        ),
    ),
    dict(type='Prune', compensate='mean'),
    dict(
        type='Train',
        name='finetune',
        epochs=6,
        row='finetuned',
        optim_wrapper=dict(optimizer=dict(lr=0.02)),
    ),
    dict(type='Report'),
]
