"""Data sets that installed packages contain, so that no download is needed."""

from easypruner.datasets.digits import Digits
from easypruner.registry import DATASETS

DATASETS.register_module(module=Digits)

__all__ = ['Digits']
