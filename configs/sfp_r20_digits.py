"""Soft filter pruning (arXiv 1808.06866): ResNet-20 on the digits, half the MACs.

After each epoch, the filters with the lowest norms are set to zero. Training can restore them. The
cut follows at the end.
"""

_base_ = '_base_/r20_digits.py'

stages = [
    dict(type='Train', name='baseline', epochs=8, row='baseline'),
    dict(
        type='Iterative',
        steps=6,
        schedule='constant',
        each=[
            dict(type='Train', epochs=1, optim_wrapper=dict(optimizer=dict(lr=0.05))),
            dict(type='SelectMask', source=dict(type='L2Norm', budget=dict(type='Macs', keep=0.5))),
            dict(type='Zero'),
        ],
    ),
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
