"""ResNet-20 of width 8 on hard MNIST images, in the short setting of docs/push.md."""

_base_ = [
    'models/resnet20_w8_mnist.py',
    'datasets/mnist5k_hard.py',
    'schedules/digits.py',
    'runtime.py',
]

# Of every group, at least 30 % of the channels stay: all data passes the residual streams.
# So small a network is as fast with widths of any size.
graph = dict(limits={'*': dict(max_removed=0.7, round_to=1)})
