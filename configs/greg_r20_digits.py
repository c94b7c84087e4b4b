"""Growing regularization (GReg-1, arXiv 2012.09243): ResNet-20 on the digits, half the MACs.

The strength of the L2 penalty on the removed filters grows until they are close to zero.
"""

_base_ = '_base_/r20_digits.py'

stages = [
    dict(type='Train', name='baseline', epochs=8, row='baseline'),
    dict(type='SelectMask', source=dict(type='L1Norm', budget=dict(type='Macs', keep=0.5))),
    dict(
        type='Train',
        name='growing',
        epochs=6,
        row='sparse',
        regularizer=dict(type='GReg', strength=0.01, every=1, ceiling=1.0),
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
