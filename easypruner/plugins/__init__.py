"""Plugins: finding them, checking them, and filling the registries with their components."""

from easypruner.hookspecs import HOOKS
from easypruner.plugins.info import ComponentInfo
from easypruner.plugins.loading import Plugins, load_plugins

__all__ = [
    'HOOKS',
    'ComponentInfo',
    'Plugins',
    'load_plugins',
]
