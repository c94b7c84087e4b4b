"""ResNet-56 (6n+2) for colour images of 32 x 32 pixels in ten classes."""

model = dict(
    type='ImageClassifier',
    backbone=dict(type='easypruner.ResNetCifar', depth=56),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=64),
)
