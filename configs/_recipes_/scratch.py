"""Training from scratch (arXiv 1810.05270): the widths of L1 norms, with new weights."""

stages = [
    dict(type='Train', name='baseline', epochs='100%', row='baseline'),
    dict(
        type='SelectMask',
        source=dict(type='L1Norm', budget=dict(type='Macs', keep=0.5)),
    ),
    dict(type='Prune'),
    dict(type='Reinitialise'),
    dict(type='Train', name='scratch', epochs='225%', row='finetuned'),
    dict(type='Report'),
]
