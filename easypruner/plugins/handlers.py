"""The layer handlers and transforms of plugins, for what cuts and rebuilds without a config."""

from __future__ import annotations

import importlib.util
import pkgutil
from functools import cache
from importlib import import_module

from easypruner.base.component import Component
from easypruner.graph import Transform
from easypruner.graph.cutting.layer_handler import LayerHandler
from easypruner.plugins.registry import LAYER_HANDLERS, REGISTRIES, TRANSFORMS

_BUILT_INS = 'easypruner_plugins'
_SUFFIX = '_layers'


def plugin_handlers() -> tuple[LayerHandler, ...]:
    """Return the layer handlers of all loaded plugins.

    As long as none were loaded, they are those of the built-in files that are named
    ``*_layers.py``. None of these imports MMEngine, or the library whose layers it knows.
    """
    if _is_loaded():
        return tuple(cls() for cls in LAYER_HANDLERS.classes.values())
    return tuple(cls() for cls in _built_in() if issubclass(cls, LayerHandler))


def plugin_transforms() -> tuple[type[Transform], ...]:
    """Return the transforms of all loaded plugins, or of the same built-in files."""
    if _is_loaded():
        return tuple(TRANSFORMS.classes.values())
    return tuple(cls for cls in _built_in() if issubclass(cls, Transform))


def _is_loaded() -> bool:
    return any(registry.classes for registry in REGISTRIES)


@cache
def _built_in() -> tuple[type[Component], ...]:
    package = importlib.util.find_spec(_BUILT_INS)
    if package is None:
        return ()
    names = [module.name for module in pkgutil.iter_modules(package.submodule_search_locations)]
    return tuple(
        component
        for name in sorted(names)
        if name.endswith(_SUFFIX)
        for component in import_module(f'{_BUILT_INS}.{name}').easypruner_components()
    )
