"""Network slimming (arXiv 1708.06519): one penalty on all scales."""

stages = [
    dict(type='Train', name='baseline', epochs='100%', row='baseline'),
    dict(
        type='Train',
        name='global_sparsity',
        epochs='150%',
        row='sparse',
        regularizer=dict(type='GlobalSparsity', strength=dict(reach=2.5)),
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
        epochs='75%',
        row='finetuned',
        lr='10%',
    ),
    dict(type='Report'),
]
