"""Functions of a copied network refer to the copy, such as a hook that ``__init__`` defines."""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn


def rebind_functions(modules: Iterable[nn.Module], copied: Mapping[int, Any]) -> None:
    """Let the functions that modules have, such as hooks, refer to copies instead of originals.

    ``copy.deepcopy`` returns functions as they are. So a hook like
    ``lambda module, inputs, output: self.features.append(output)`` would work on the original.

    Args:
        modules: the modules of a copy, which are changed.
        copied: what ``copy.deepcopy`` has noted: identity of an original -> its copy.
    """
    functions = _Functions(copied)
    for module in modules:
        for name, value in list(vars(module).items()):
            if name.endswith('_hooks') and isinstance(value, dict):
                value.update({key: functions.of(hook) for key, hook in value.items()})
            elif isinstance(value, types.FunctionType):
                vars(module)[name] = functions.of(value)


class _Functions:
    """Makes functions that refer to copies.

    Args:
        copied: identity of an original -> its copy.
    """

    def __init__(self, copied: Mapping[int, Any]) -> None:
        self._copied = copied
        self._known: dict[int, types.FunctionType] = {}

    def of(self, value: Any) -> Any:
        """Return what stands for a value in the copy: the value itself if it has no original."""
        if id(value) in self._copied:
            return self._copied[id(value)]
        if isinstance(value, types.MethodType):
            owner = self.of(value.__self__)
            return value if owner is value.__self__ else types.MethodType(value.__func__, owner)
        return self._of_function(value) if isinstance(value, types.FunctionType) else value

    def _of_function(self, function: types.FunctionType) -> types.FunctionType:
        if id(function) in self._known:  # it may refer to itself
            return self._known[id(function)]
        old = function.__closure__ or ()
        # A variable without a value may get one later.
        cells = tuple(types.CellType() if _is_full(cell) else cell for cell in old)
        new = types.FunctionType(
            function.__code__, function.__globals__, function.__name__, closure=cells or None
        )
        self._known[id(function)] = new
        for cell, before in zip(cells, old, strict=True):
            if cell is not before:
                cell.cell_contents = self.of(before.cell_contents)
        defaults = function.__defaults__
        new.__defaults__ = tuple(map(self.of, defaults)) if defaults else defaults
        for name in ('__kwdefaults__', '__doc__', '__module__', '__qualname__'):
            setattr(new, name, getattr(function, name))
        vars(new).update(vars(function))
        if all(a is b for a, b in zip(_referred(function), _referred(new), strict=True)):
            self._known[id(function)] = function
        return self._known[id(function)]


def _is_full(cell: types.CellType) -> bool:
    """Return whether a variable has a value."""
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False


def _referred(function: types.FunctionType) -> list[Any]:
    """Return the values of the variables and defaults of a function."""
    cells = [cell.cell_contents for cell in function.__closure__ or () if _is_full(cell)]
    return [*cells, *(function.__defaults__ or ())]
