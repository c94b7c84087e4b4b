"""Models that are not in mmpretrain."""

from easypruner.models.resnet_cifar import ResNetCifar
from easypruner.registry import MODELS

MODELS.register_module(module=ResNetCifar)

__all__ = ['ResNetCifar']
