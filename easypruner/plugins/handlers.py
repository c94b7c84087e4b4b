"""The handlers and transforms of plugins, for functions that work without a config."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from easypruner.base.component import Component
from easypruner.graph import LayerHandler, OptimizerHandler, Transform
from easypruner.plugins.discovery import BUILT_INS, FOLDER_PACKAGE, built_in_modules
from easypruner.plugins.registry import (
    LAYER_HANDLERS,
    OPTIMIZER_HANDLERS,
    REGISTRIES,
    TRANSFORMS,
    ComponentRegistry,
)

_SUFFIXES = ('_layers', '_optimizers')


def plugin_handlers() -> tuple[LayerHandler, ...]:
    """Return the layer handlers of all loaded plugins.

    If no plugins are loaded, return those of the built-in files ``*_layers.py``. These files import
    neither MMEngine nor the library that defines the layers.
    """
    return tuple(cls() for cls in _classes(LAYER_HANDLERS))


def plugin_optimizer_handlers() -> tuple[OptimizerHandler, ...]:
    """Return the optimizer handlers of all loaded plugins, or of the built-in ``*_optimizers.py``.

    These files do not import the library that defines the optimizers either.
    """
    return tuple(cls() for cls in _classes(OPTIMIZER_HANDLERS))


def plugin_transforms() -> tuple[type[Transform], ...]:
    """Return the transforms of all loaded plugins, or of the same built-in files."""
    return _classes(TRANSFORMS)


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


def _classes(registry: ComponentRegistry) -> tuple[type[Any], ...]:
    if any(other.classes for other in REGISTRIES):
        return tuple(registry.classes.values())
    return tuple(cls for cls in _built_in() if issubclass(cls, registry.contract))


@cache
def _built_in() -> tuple[type[Component], ...]:
    return tuple(
        component
        for name in built_in_modules()
        if name.endswith(_SUFFIXES)
        for component in import_module(name).easypruner_components()
    )
