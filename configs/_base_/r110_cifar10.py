"""The setting of all configs of ResNet-110 on CIFAR-10: model, data, schedule, limits."""

_base_ = [
    'models/resnet110_cifar.py',
    'datasets/cifar10.py',
    'schedules/cifar10.py',
    'runtime.py',
]

# No layer or residual stream may lose almost all of its channels.
graph = dict(limits={'*': dict(max_removed=0.9)})
# The paper removes 63.03 % of the FLOPs and 60.34 % of the parameters.
budget = [dict(type='Macs', keep=0.3697), dict(type='Params', keep=0.3966)]
