"""Fixtures of the tests of the repository."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

import pytest

from tests.helpers.benchmarks import BENCHMARKS


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that imports a module of the benchmarks, last on the path."""

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    monkeypatch.setattr(sys, 'path', [*sys.path, str(BENCHMARKS)])
    return load
