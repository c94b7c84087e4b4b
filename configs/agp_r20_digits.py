"""Gradual pruning (cubic schedule, arXiv 1710.01878): ResNet-20 on the digits, half the MACs.

There are four cuts with training in between. The first cut removes the most channels.
"""

_base_ = '_base_/r20_digits.py'

stages = [
    dict(type='Train', name='baseline', epochs=8, row='baseline'),
    dict(
        type='Iterative',
        steps=4,
        schedule='agp',
        each=[
            dict(type='SelectMask', source=dict(type='L1Norm', budget=dict(type='Macs', keep=0.5))),
            dict(type='Prune'),
            dict(type='Train', epochs=3, optim_wrapper=dict(optimizer=dict(lr=0.05))),
        ],
    ),
    dict(
        type='Train',
        name='finetune',
        epochs=6,
        row='finetuned',
        optim_wrapper=dict(optimizer=dict(lr=0.02)),
    ),
    dict(type='Report'),
]
