"""Taylor expansion (Molchanov et al., 2019): ResNet-20 on the digits, half the MACs.

A score is the change of the loss without the channel, estimated from gradients on training batches.
"""

_base_ = '_base_/r20_digits.py'

stages = [
    dict(type='Train', name='baseline', epochs=8, row='baseline'),
    dict(
        type='SelectMask',
        source=dict(type='Taylor', form='gate', batches=8, budget=dict(type='Macs', keep=0.5)),
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
