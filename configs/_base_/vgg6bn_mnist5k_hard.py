"""The setting of all configs of a small VGG on hard MNIST images."""

_base_ = ['models/vgg6bn_mnist.py', 'mnist5k_hard.py']

train_cfg = dict(max_epochs=40)
