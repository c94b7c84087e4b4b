"""Gradual pruning (cubic schedule, arXiv 1710.01878): four cuts with training in between."""

stages = [
    dict(type='Train', name='baseline', epochs='100%', row='baseline'),
    dict(
        type='Iterative',
        steps=4,
        schedule='agp',
        each=[
            dict(type='SelectMask', source=dict(type='L1Norm', budget=dict(type='Macs', keep=0.5))),
            dict(type='Prune'),
            dict(type='Train', epochs='38%', lr='50%'),
        ],
    ),
    dict(
        type='Train',
        name='finetune',
        epochs='75%',
        row='finetuned',
        lr='10%',
    ),
    dict(type='Report'),
]
