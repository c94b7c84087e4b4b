"""Growing regularization (GReg-1, arXiv 2012.09243)."""

stages = [
    dict(type='Train', name='baseline', epochs='100%', row='baseline'),
    dict(
        type='SelectMask',
        source=dict(type='L1Norm', budget=dict(type='Macs', keep=0.5)),
    ),
    dict(
        type='Train',
        name='growing',
        epochs='75%',
        row='sparse',
        regularizer=dict(type='GReg', strength=dict(reach=7.0), ceiling=1e3),
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
