"""L1 norms; the unpruned network teaches the pruned one (arXiv 1503.02531)."""

stages = [
    dict(type='Train', name='baseline', epochs='100%', row='baseline'),
    dict(
        type='SelectMask',
        source=dict(type='L1Norm', budget=dict(type='Macs', keep=0.5)),
    ),
    dict(type='Prune'),
    dict(type='Calibrate'),
    dict(
        type='Distill',
        epochs='225%',
        row='finetuned',
        lr='10%',
    ),
    dict(type='Report'),
]
