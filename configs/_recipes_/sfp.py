"""Soft filter pruning (arXiv 1808.06866): filters are set to zero ten times, and may return."""

stages = [
    dict(type='Train', name='baseline', epochs='100%', row='baseline'),
    dict(
        type='Iterative',
        steps=10,
        schedule='constant',
        each=[
            dict(type='Train', epochs='8%', lr='50%'),
            dict(type='SelectMask', source=dict(type='L2Norm', budget=dict(type='Macs', keep=0.5))),
            dict(type='Zero'),
        ],
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
