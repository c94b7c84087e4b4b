"""Polarization (Zhuang et al., NeurIPS 2020): ResNet-20 on the digits, half the MACs.

Before scales are ranked, some are pushed to zero and the others away from zero.
"""

_base_ = '_base_/r20_digits.py'

stages = [
    dict(type='Train', name='baseline', epochs=8, row='baseline'),
    dict(
        type='Train',
        name='polarization',
        epochs=6,
        row='sparse',
        regularizer=dict(type='Polarization', strength=dict(reach=1.0), t=1.2),
    ),
    dict(type='SelectMask', source=dict(type='BNScale', budget=dict(type='Macs', keep=0.5))),
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
