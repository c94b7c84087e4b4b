"""The setting of all configs of ResNet-20 of width 8 on hard MNIST images."""

_base_ = ['models/resnet20_w8_mnist.py', 'mnist5k_hard.py']
