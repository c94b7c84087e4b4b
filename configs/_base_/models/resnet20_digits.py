"""ResNet-20 (6n+2) for grey images in ten classes."""

model = dict(
    type='ImageClassifier',
    backbone=dict(type='easypruner.ResNetCifar', depth=20, in_channels=1),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=10,
        in_channels=64,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
    ),
)
