"""First-order Taylor scores of the loss (arXiv 1906.10771)."""

stages = [
    dict(type='Train', name='baseline', epochs='100%', row='baseline'),
    dict(
        type='SelectMask',
        source=dict(type='Taylor', batches=8, budget=dict(type='Macs', keep=0.5)),
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
