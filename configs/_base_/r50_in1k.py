"""The setting of all configs of ResNet-50 on ImageNet: that of the released MaskSparsity code."""

_base_ = [
    'models/resnet50.py',
    'datasets/imagenet_pycls.py',
    'schedules/imagenet.py',
    'runtime.py',
]

# pycls estimates batch norms on 8192 images after each epoch (BN.NUM_SAMPLES_PRECISE).
custom_hooks = [dict(type='PreciseBNHook', num_samples=8192, priority='ABOVE_NORMAL')]

# No layer or residual stream may lose almost all of its channels.
graph = dict(limits={'*': dict(max_removed=0.9)})
# The paper removes 51.07 % of the FLOPs.
budget = dict(type='Macs', keep=0.4893)
