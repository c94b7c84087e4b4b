"""Plugins are found on first use: ensure_loaded(), and components by name for Python code."""

from __future__ import annotations

from typing import Any

from easypruner.plugins.loading import load_without_stages
from easypruner.plugins.registry import REGISTRIES, ComponentRegistry, hint


def ensure_loaded() -> None:
    """Load the plugins, unless they were loaded before."""
    if not any(registry.classes for registry in REGISTRIES):
        load_without_stages()


def component_of(registry: ComponentRegistry, name: str, module: str) -> type[Any]:
    """Return a class by its name, as an attribute of a module.

    Raises:
        AttributeError: there is no such class; the message names the nearest one.
    """
    # Python looks for these in any module.
    if name.startswith('__'):
        raise AttributeError(f'module {module!r} has no attribute {name!r}')
    ensure_loaded()
    if name not in registry.classes:
        raise AttributeError(f'{module} has no {registry.kind} {name!r}; {hint(registry, name)}')
    return registry.classes[name]


def names_of(registry: ComponentRegistry) -> list[str]:
    """Return the names of all components of a kind."""
    ensure_loaded()
    return sorted(registry.classes)
