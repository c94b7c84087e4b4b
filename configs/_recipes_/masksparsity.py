"""MaskSparsity (arXiv 2201.06776): only the scales of the channels to remove are pushed to zero."""

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
    dict(
        type='Train',
        name='mask_sparsity',
        epochs='75%',
        row='sparse',
        regularizer=dict(type='MaskSparsity', strength=dict(reach=20.0)),
    ),
    dict(type='Prune'),
    dict(type='Calibrate'),
    dict(
        type='Train',
        name='finetune',
        epochs='75%',
        row='finetuned',
        lr='10%',
    ),
    dict(type='Report'),
]
