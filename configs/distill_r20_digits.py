"""L1 norms, with the unpruned network as a teacher: ResNet-20 on the digits, half the MACs.

Like l1_r20_digits, but fine-tuned by distillation (arXiv 1503.02531).
"""

_base_ = '_base_/r20_digits.py'

stages = [
    dict(type='Train', name='baseline', epochs=8, row='baseline'),
    dict(type='SelectMask', source=dict(type='L1Norm', budget=dict(type='Macs', keep=0.5))),
    dict(type='Prune'),
    dict(type='Calibrate'),
    dict(
        type='Distill',
        epochs=18,
        row='finetuned',
        soft=dict(temperature=4.0),
        optim_wrapper=dict(optimizer=dict(lr=0.02)),
    ),
    dict(type='Report'),
]
