"""Data sets that come with installed packages: nothing is downloaded."""

from easypruner.datasets.digits import Digits
from easypruner.registry import DATASETS

DATASETS.register_module(module=Digits)

__all__ = ['Digits']
