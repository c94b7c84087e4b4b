"""EagleEye (arXiv 2007.02491): the best of random widths after batch norms are adapted."""

stages = [
    dict(type='Train', name='baseline', epochs='100%', row='baseline'),
    dict(
        type='SelectMask',
        source=dict(type='EagleEye', candidates=30, batches=4, budget=dict(type='Macs', keep=0.5)),
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
