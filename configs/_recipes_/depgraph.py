"""DepGraph (arXiv 2301.12900): all weights of a coupled group are pushed and ranked together."""

stages = [
    dict(type='Train', name='baseline', epochs='100%', row='baseline'),
    dict(
        type='Train',
        name='group_sparsity',
        epochs='75%',
        row='sparse',
        regularizer=dict(type='GroupLasso', strength=dict(reach=0.33), over='group', alpha=4),
    ),
    dict(
        type='SelectMask',
        source=dict(type='Group', budget=dict(type='Macs', keep=0.5)),
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
