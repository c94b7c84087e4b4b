"""Mask sources of all plugins, by name: ``easypruner.sources.L1Norm(budget=...)``."""

from __future__ import annotations

from typing import Any

from easypruner.plugins.registry import MASK_SOURCES
from easypruner.plugins.use import component_of, names_of


def __getattr__(name: str) -> Any:
    return component_of(MASK_SOURCES, name, __name__)


def __dir__() -> list[str]:
    return names_of(MASK_SOURCES)
