"""The layer handlers and transforms of plugins, for functions that work without a config."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from functools import cache
from importlib import import_module
from pathlib import Path

from easypruner.base.component import Component
from easypruner.graph import Transform
from easypruner.graph.cutting.handlers import LayerHandler
from easypruner.plugins.discovery import BUILT_INS, FOLDER_PACKAGE, built_in_modules
from easypruner.plugins.registry import LAYER_HANDLERS, REGISTRIES, TRANSFORMS

_SUFFIX = '_layers'


def plugin_handlers() -> tuple[LayerHandler, ...]:
    """Return the layer handlers of all loaded plugins.

    If no plugins are loaded, return those of the built-in files ``*_layers.py``. These files import
    neither MMEngine nor the library that defines the layers.
    """
    if _is_loaded():
        return tuple(cls() for cls in LAYER_HANDLERS.classes.values())
    return tuple(cls() for cls in _built_in() if issubclass(cls, LayerHandler))


def plugin_transforms() -> tuple[type[Transform], ...]:
    """Return the transforms of all loaded plugins, or of the same built-in files."""
    if _is_loaded():
        return tuple(TRANSFORMS.classes.values())
    return tuple(cls for cls in _built_in() if issubclass(cls, Transform))


def find_origins(classes: Iterable[type]) -> list[str]:
    """Return what has to be loaded to have classes of plugins: their folders or modules.

    The plugins of EasyPruner itself are always loaded, so they are left out.
    """
    origins: dict[str, None] = {}
    for cls in classes:
        package = cls.__module__.partition('.')[0]
        if package.startswith(FOLDER_PACKAGE):
            origins[str(Path(inspect.getfile(cls)).parent)] = None
        elif package not in ('easypruner', BUILT_INS):
            origins[cls.__module__] = None
    return list(origins)


def _is_loaded() -> bool:
    return any(registry.classes for registry in REGISTRIES)


@cache
def _built_in() -> tuple[type[Component], ...]:
    return tuple(
        component
        for name in built_in_modules()
        if name.endswith(_SUFFIX)
        for component in import_module(name).easypruner_components()
    )
