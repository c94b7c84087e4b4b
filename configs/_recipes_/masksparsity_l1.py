"""MaskSparsity with masks by L1 norms; a closed loop sets the strength of its penalty."""

stages = [
    dict(type='Train', name='baseline', epochs='100%', row='baseline'),
    dict(
        type='SelectMask',
        source=dict(type='L1Norm', budget=dict(type='Macs', keep=0.5)),
    ),
    dict(
        type='Train',
        name='mask_sparsity',
        epochs='125%',
        row='sparse',
        regularizer=dict(type='MaskSparsity', strength=dict(until=1e-3)),
    ),
    dict(type='Prune'),
    dict(type='Calibrate'),
    dict(
        type='Train',
        name='finetune',
        epochs='100%',
        row='finetuned',
        lr='10%',
    ),
    dict(type='Report'),
]
