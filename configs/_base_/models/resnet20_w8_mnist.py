"""ResNet-20 (6n+2) of width 8 for grey images in ten classes."""

model = dict(
    type='ImageClassifier',
    backbone=dict(type='easypruner.ResNetCifar', depth=20, in_channels=1, width=8),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=10,
        in_channels=32,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
    ),
)
