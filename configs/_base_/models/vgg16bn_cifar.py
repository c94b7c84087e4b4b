"""VGG-16 with batch norms and one linear layer, for images of 32 x 32 pixels in ten classes."""

model = dict(
    type='ImageClassifier',
    # Without num_classes, the backbone leaves out its three linear layers for 7 x 7 maps.
    backbone=dict(type='VGG', depth=16, norm_cfg=dict(type='BN'), out_indices=(4,)),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=512),
)
