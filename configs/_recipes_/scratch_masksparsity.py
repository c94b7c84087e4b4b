"""Training from scratch (arXiv 1810.05270): new weights in the widths of MaskSparsity.

The new weights are trained for as many epochs as other recipes train in all.
"""

stages = [
    dict(type='Train', name='baseline', epochs='100%', row='baseline'),
    dict(
        type='Train',
        name='global_sparsity',
        epochs='75%',
        regularizer=dict(type='GlobalSparsity', strength=dict(reach=1.0)),
    ),
    dict(
        type='SelectMask',
        source=dict(type='BNScale', budget=dict(type='Macs', keep=0.5)),
    ),
    dict(type='Prune'),
    dict(type='Reinitialise'),
    dict(type='Train', name='scratch', epochs='325%', row='finetuned'),
    dict(type='Report'),
]
