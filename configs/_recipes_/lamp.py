"""LAMP (arXiv 2010.07611), with channels instead of single weights."""

stages = [
    dict(type='Train', name='baseline', epochs='100%', row='baseline'),
    dict(
        type='SelectMask',
        source=dict(type='Lamp', budget=dict(type='Macs', keep=0.5)),
    ),
    dict(type='Prune'),
    dict(type='Calibrate'),
    dict(
        type='Train',
        name='finetune',
        epochs='225%',
        row='finetuned',
        lr='10%',
    ),
    dict(type='Report'),
]
