"""Group sparsity of DepGraph (arXiv 2301.12900): ResNet-20 on the digits, half the MACs.

All weights of a coupled group are pushed and ranked together.
"""

_base_ = '_base_/r20_digits.py'

stages = [
    dict(type='Train', name='baseline', epochs=8, row='baseline'),
    dict(
        type='Train',
        name='group_sparsity',
        epochs=6,
        row='sparse',
        regularizer=dict(type='GroupLasso', strength=5e-3, over='group', alpha=4),
    ),
    dict(type='SelectMask', source=dict(type='Group', budget=dict(type='Macs', keep=0.5))),
    dict(type='Prune'),
    dict(type='Calibrate'),
    dict(
        type='Train',
        name='finetune',
        epochs=12,
        row='finetuned',
        optim_wrapper=dict(optimizer=dict(lr=0.02)),
    ),
    dict(type='Report'),
]
