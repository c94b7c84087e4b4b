"""VGG with batch norms: five convolutions and a linear layer, for grey images in ten classes."""

model = dict(
    type='ImageClassifier',
    backbone=dict(type='easypruner.VGGSmall', stages=[[16], [32, 32], [64, 64]], in_channels=1),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=10,
        in_channels=64,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
    ),
)
