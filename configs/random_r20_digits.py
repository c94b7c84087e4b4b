"""Random channels, the baseline of every method: ResNet-20 on the digits, half the MACs.

Like masksparsity_r20_digits, but without penalties. Fine-tuning gets their epochs.
"""

_base_ = '_base_/r20_digits.py'

stages = [
    dict(type='Train', name='baseline', epochs=8, row='baseline'),
    dict(
        type='SelectMask',
        source=dict(type='Random', budget=dict(type='Macs', keep=0.5)),
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
