"""scikit-learn's digits, 8x8 and grey. Training images are shifted randomly by up to one pixel."""

data_preprocessor = dict(num_classes=10, mean=[78.0], std=[96.0], to_rgb=False)

train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    dataset=dict(
        type='easypruner.Digits',
        split='train',
        pipeline=[dict(type='RandomCrop', crop_size=8, padding=1), dict(type='PackInputs')],
    ),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=180,
    num_workers=0,
    dataset=dict(type='easypruner.Digits', split='val', pipeline=[dict(type='PackInputs')]),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_evaluator = dict(type='Accuracy', topk=(1,))
