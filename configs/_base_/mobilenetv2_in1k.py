"""The setting of all configs of MobileNetV2 on ImageNet: model, data, schedule and limits."""

_base_ = [
    'models/mobilenetv2.py',
    'datasets/imagenet.py',
    'schedules/imagenet_mobilenetv2.py',
    'runtime.py',
]

# No layer or residual stream may lose almost all of its channels.
graph = dict(limits={'*': dict(max_removed=0.9)})
budget = dict(type='Macs', keep=0.5)
