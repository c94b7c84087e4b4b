"""ImageNet as the released MaskSparsity code reads it, with the data code of pycls.

Sources in CASIA-IVA-Lab/MaskSparsity: pycls/datasets/imagenet.py and transforms.py (random crops of
at least 8 % of the area, flips, PCA lighting with a standard deviation of 0.1, the last incomplete
batch left out, BGR images), and R-50-1x64d_step_8gpu.yaml (batches of 32 and 25 per GPU).
mmpretrain has the same settings for RegNet. Images are floats, because lighting may leave the range
of bytes.
"""

data_preprocessor = dict(
    num_classes=1000,
    mean=[103.53, 116.28, 123.675],
    std=[57.375, 57.12, 58.395],
    to_rgb=False,
)

train_dataloader = dict(
    batch_size=32,
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    dataset=dict(
        type='ImageNet',
        data_root='data/imagenet',
        split='train',
        pipeline=[
            dict(type='LoadImageFromFile', to_float32=True),
            dict(type='RandomResizedCrop', scale=224),
            dict(type='RandomFlip', prob=0.5, direction='horizontal'),
            dict(
                type='Lighting',
                eigval=[0.2175, 0.0188, 0.0045],
                eigvec=[
                    [-0.5836, -0.6948, 0.4203],
                    [-0.5808, -0.0045, -0.8140],
                    [-0.5675, 0.7192, 0.4009],
                ],
                alphastd=25.5,
                to_rgb=False,
            ),
            dict(type='PackInputs'),
        ],
    ),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=25,
    num_workers=4,
    persistent_workers=True,
    dataset=dict(
        type='ImageNet',
        data_root='data/imagenet',
        split='val',
        pipeline=[
            dict(type='LoadImageFromFile', to_float32=True),
            dict(type='ResizeEdge', scale=256, edge='short'),
            dict(type='CenterCrop', crop_size=224),
            dict(type='PackInputs'),
        ],
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_evaluator = dict(type='Accuracy', topk=(1, 5))
