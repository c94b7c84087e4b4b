"""Training from scratch (arXiv 1810.05270): ResNet-20 on the digits, half the MACs.

The widths are those of l1_r20_digits. The weights are initialized again and trained as long.
"""

_base_ = '_base_/r20_digits.py'

stages = [
    dict(type='Train', name='baseline', epochs=8, row='baseline'),
    dict(type='SelectMask', source=dict(type='L1Norm', budget=dict(type='Macs', keep=0.5))),
    dict(type='Prune'),
    dict(type='Reinitialise'),
    dict(type='Train', name='scratch', epochs=18, row='finetuned'),
    dict(type='Report'),
]
