"""Plugins: finding them, checking them, and filling the registries with their components."""

from easypruner.hookspecs import HOOKS
from easypruner.plugins.info import ComponentInfo, DisabledPlugin, PluginInfo, SkippedPlugin
from easypruner.plugins.loading import DISABLE_VARIABLE, Plugins, load_plugins

__all__ = [
    'DISABLE_VARIABLE',
    'HOOKS',
    'ComponentInfo',
    'DisabledPlugin',
    'PluginInfo',
    'Plugins',
    'SkippedPlugin',
    'load_plugins',
]
