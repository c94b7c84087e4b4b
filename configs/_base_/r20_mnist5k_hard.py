"""The setting of all recipes on the hard MNIST images: model, data, schedule and runtime."""

_base_ = [
    'models/resnet20_w8_mnist.py',
    'datasets/mnist5k_hard.py',
    'schedules/digits.py',
    'runtime.py',
]
