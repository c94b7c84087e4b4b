"""EagleEye (arXiv 2007.02491): ResNet-20 on the digits, half the MACs.

Random widths that meet the budget are evaluated after their batch norms are adapted. The best
widths are cut.
"""

_base_ = '_base_/r20_digits.py'

stages = [
    dict(type='Train', name='baseline', epochs=8, row='baseline'),
    dict(
        type='SelectMask',
        source=dict(type='EagleEye', candidates=30, batches=4, budget=dict(type='Macs', keep=0.5)),
    ),
    dict(type='Prune'),
    dict(type='Calibrate'),
    dict(
        type='Train',
        name='finetune',
        epochs=18,
        row='finetuned',
        optim_wrapper=dict(optimizer=dict(lr=0.02)),
    ),
    dict(type='Report'),
]
