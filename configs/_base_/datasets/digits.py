"""Scikit-learn's digits, enlarged to 16 x 16 pixels; nothing is downloaded."""

data_preprocessor = dict(num_classes=10, mean=[78.0], std=[96.0])

train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    dataset=dict(
        type='easypruner.Digits',
        split='train',
        pipeline=[dict(type='RandomCrop', crop_size=16, padding=1), dict(type='PackInputs')],
    ),
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
)
val_dataloader = dict(
    batch_size=180,
    num_workers=0,
    dataset=dict(type='easypruner.Digits', split='val', pipeline=[dict(type='PackInputs')]),
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
)
val_evaluator = dict(type='Accuracy', topk=(1,))
