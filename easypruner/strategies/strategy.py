"""Strategy: the base class of mask sources, budgets, regularizers and stages."""

from __future__ import annotations

import inspect
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from easypruner.base.component import Component
from easypruner.graph import ChannelGraph


class Strategy(Component):
    """A component that a config names and gives arguments to.

    A subclass can change defaults of the constructor that it inherits, as in
    ``class FPGM(MaskSource, normalization='mean')``.

    Attributes:
        example_arguments: what :meth:`example` returns, unless a subclass overrides it.
    """

    example_arguments: ClassVar[Mapping[str, Any]] = {}

    def __init_subclass__(cls, **defaults: Any) -> None:
        """Change defaults of the constructor.

        Raises:
            TypeError: the constructor does not have an argument of that name.
        """
        super().__init_subclass__()
        if defaults:
            cls.__init__ = _with_defaults(cls.__init__, defaults)  # type: ignore

    @classmethod
    def example(cls, graph: ChannelGraph, folder: Path) -> Mapping[str, Any]:
        """Return arguments that work on a small network, for tests.

        The budget of a source is always left out. Arguments with a default may be left out.

        Args:
            graph: the channel graph of the network.
            folder: the folder for files that the arguments name.
        """
        return cls.example_arguments


def _with_defaults(
    constructor: types.FunctionType, defaults: Mapping[str, Any]
) -> types.FunctionType:
    """Return a copy of a constructor with other defaults."""
    parameters = inspect.signature(constructor).parameters
    if unknown := sorted(defaults.keys() - parameters.keys()):
        raise TypeError(f'{constructor.__qualname__} does not have the arguments {unknown}')
    values = [defaults.get(name, p.default) for name, p in parameters.items()]
    given = tuple(value for value in values if value is not inspect.Parameter.empty)
    code, scope, cells = constructor.__code__, constructor.__globals__, constructor.__closure__
    copy = types.FunctionType(code, scope, constructor.__name__, given, cells)
    copy.__annotations__ = constructor.__annotations__
    return copy
