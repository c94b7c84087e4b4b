"""Models that are not in mmpretrain."""

from easypruner.models.resnet_cifar import ResNetCifar
from easypruner.models.vgg_small import VGGSmall
from easypruner.registry import MODELS

MODELS.register_module(module=VGGSmall)
MODELS.register_module(module=ResNetCifar)

__all__ = ['ResNetCifar', 'VGGSmall']
