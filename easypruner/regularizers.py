"""Regularizers of all plugins, by name: ``easypruner.regularizers.MaskSparsity(dict(reach=5))``."""

from __future__ import annotations

from typing import Any

from easypruner.plugins.registry import REGULARIZERS
from easypruner.plugins.use import component_of, names_of


def __getattr__(name: str) -> Any:
    return component_of(REGULARIZERS, name, __name__)


def __dir__() -> list[str]:
    return names_of(REGULARIZERS)
