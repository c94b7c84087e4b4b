"""Polarization (Zhuang et al., NeurIPS 2020): some scales are pushed to zero, the others away."""

stages = [
    dict(type='Train', name='baseline', epochs='100%', row='baseline'),
    dict(
        type='Train',
        name='polarization',
        epochs='75%',
        row='sparse',
        regularizer=dict(type='Polarization', strength=dict(reach=1.0), t=1.2),
    ),
    dict(
        type='SelectMask',
        source=dict(type='BNScale', budget=dict(type='Macs', keep=0.5)),
    ),
    dict(type='Prune'),
    dict(type='Calibrate'),
    dict(
        type='Train',
        name='finetune',
        epochs='150%',
        row='finetuned',
        lr='10%',
    ),
    dict(type='Report'),
]
