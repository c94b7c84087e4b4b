"""The setting of all configs of ResNet-56 on CIFAR-10: model, data, schedule, limits."""

_base_ = [
    'models/resnet56_cifar.py',
    'datasets/cifar10.py',
    'schedules/cifar10.py',
    'runtime.py',
]

# No layer or residual stream may lose almost all of its channels.
graph = dict(limits={'*': dict(max_removed=0.9)})
budget = dict(type='Macs', keep=0.5)
