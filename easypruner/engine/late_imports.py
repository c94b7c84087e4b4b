"""Keeps MMEngine from importing transformers, which takes seconds, until a config needs it.

MMEngine imports ``transformers`` for the optimizer Adafactor, wherever it is installed, together
with its own optimizers; ``transformers`` imports ``peft``, ``accelerate`` and others in turn.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from types import ModuleType
from typing import Any

_BUILDER = 'mmengine.optim.optimizer.builder'
_LATE = 'transformers'
_OPTIMIZER = 'Adafactor'


def install() -> None:
    """Let MMEngine's optimizers be imported without ``transformers``; later calls do nothing.

    The optimizer is registered nevertheless, and imports ``transformers`` when it is built.
    """
    known = any(isinstance(finder, _Finder) for finder in sys.meta_path)
    if not known and not {_BUILDER, _LATE} & sys.modules.keys():
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds one module, with a loader that hides ``transformers`` while the module is executed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _BUILDER:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(Loader):
    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if _LATE in sys.modules or find_spec(_LATE) is None:
            self._loader.exec_module(module)
            return
        with _hidden(_LATE):
            self._loader.exec_module(module)
        if _OPTIMIZER not in module.OPTIMIZERS:
            module.OPTIMIZERS.register_module(name=_OPTIMIZER, module=build_adafactor)


@contextmanager
def _hidden(name: str) -> Iterator[None]:
    """Let imports of a module that nothing has imported fail, as if it were not installed."""
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]


def build_adafactor(params: Any, **settings: Any) -> Any:
    """Build the optimizer Adafactor of ``transformers``.

    Args:
        params: the parameters, or groups of them.
        **settings: the arguments of the optimizer.
    """
    return getattr(importlib.import_module(_LATE), _OPTIMIZER)(params, **settings)
