"""Models that mmpretrain lacks, and the pruned form of any model."""

from easypruner.models.pruned import PrunedModel
from easypruner.models.resnet_cifar import ResNetCifar
from easypruner.registry import MODELS

MODELS.register_module(module=ResNetCifar)
MODELS.register_module(module=PrunedModel)

__all__ = ['PrunedModel', 'ResNetCifar']
