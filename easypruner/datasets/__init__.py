"""Data sets that installed packages contain, so that no download is needed."""

from easypruner.datasets.digits import Digits
from easypruner.datasets.held_out import HeldOut
from easypruner.datasets.mnist5k_hard import Mnist5kHard
from easypruner.registry import DATASETS

DATASETS.register_module(module=Digits)
DATASETS.register_module(module=HeldOut)
DATASETS.register_module(module=Mnist5kHard)

__all__ = ['Digits', 'HeldOut', 'Mnist5kHard']
