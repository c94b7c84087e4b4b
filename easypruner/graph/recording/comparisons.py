"""Whether the code of a network may compare widths, as far as its bytecode shows it."""

from __future__ import annotations

import contextlib
import dis
import functools
import types
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from torch import nn

from easypruner.base.user_code import is_foreign
from easypruner.graph.recording.config_numbers import numbers_of

_SHAPES = frozenset({'shape', 'size', 'numel', 'nelement', 'len'})
_COMPARING = frozenset({'min', 'max', 'sorted', 'set', 'eq', 'ne', 'lt', 'le', 'gt', 'ge'})
_OPERATIONS = ('COMPARE_OP', 'CONTAINS_OP', 'BINARY_MODULO', 'INPLACE_MODULO')
_TESTS = ('POP_JUMP', 'JUMP_IF', 'TO_BOOL', 'UNARY_NOT')
_ITEMS = ('BINARY_SUBSCR', 'BINARY_SLICE')
_CALLED = ('forward', '__call__')
_FOREIGN = ('torch.', 'builtins', 'collections')


class _Code(NamedTuple):
    """What a function does, with the functions in it.

    Attributes:
        names: the attributes and globals that it reads.
        compares: whether it compares numbers, or asks for a remainder.
    """

    names: frozenset[str]
    compares: bool


def may_compare_widths(modules: Iterable[nn.Module]) -> bool:
    """Return whether code of modules may compare widths, or numbers that follow them.

    So does a function that compares and reads a shape or an integer of a module, and one to which
    a function with a shape may hand it.

    Args:
        modules: all modules of a network.

    >>> class Block(nn.Module):
    ...     def forward(self, x, y):
    ...         return x + y if x.shape == y.shape else y
    >>> may_compare_widths([Block()]), may_compare_widths([nn.Linear(2, 2)])
    (True, False)
    """
    listed = list(modules)
    widths = _SHAPES.union(
        name for module in listed for name, value in vars(module).items() if numbers_of(value)
    )
    found = {function: _read(function.__code__) for function in _functions_of(listed)}
    reading = [code for code in found.values() if not widths.isdisjoint(code.names)]
    handed = {name for code in reading for name in code.names}
    return any(
        code.compares and (code in reading or function.__name__ in handed)
        for function, code in found.items()
    )


@lru_cache(4096)
def _read(code: types.CodeType) -> _Code:
    names: set[str] = set()
    compares = False
    for part in _parts_of(code):
        names.update(part.co_names)
        compares = compares or _compares(part)
    return _Code(frozenset(names), compares)


def _compares(code: types.CodeType) -> bool:
    """Return whether code compares values, or asks whether a result of arithmetic is 0."""
    if not _COMPARING.isdisjoint(code.co_names):
        return True
    is_result = False
    for step in dis.get_instructions(code):
        if step.opname in _OPERATIONS or (is_result and step.opname.startswith(_TESTS)):
            return True
        is_result = step.opname.startswith(('BINARY_', 'INPLACE_')) and step.opname not in _ITEMS
        if is_result and step.argrepr.startswith('%'):
            return True
    return False


def _parts_of(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _parts_of(constant)


def _functions_of(modules: Iterable[nn.Module]) -> Iterator[types.FunctionType]:
    """Yield the functions that calls of modules may run, other than those of torch and of Python.

    Methods are found by their names: a call of ``self.merge`` may run any method of this name.
    """
    attributes = [value for module in modules for value in (module, *vars(module).values())]
    methods: dict[str, list[Any]] = {}
    for cls in {cls for kind in set(map(type, attributes)) for cls in kind.__mro__}:
        if not cls.__module__.startswith(_FOREIGN):
            for name, value in vars(cls).items():
                methods.setdefault(name, []).append(value)
    values = [value for name in _CALLED for value in methods.get(name, ())]
    values += [value for value in attributes if isinstance(value, dict) or callable(value)]
    seen: set[int] = set()
    while values:
        value = _unwrap(values.pop())
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, dict):
            values.extend(value.values())
        elif isinstance(value, types.FunctionType) and not is_foreign(value.__code__.co_filename):
            yield value
            values.extend(_used_by(value, methods))


def _unwrap(value: Any) -> Any:
    """Return the function in a method, a property or what has some of its arguments."""
    if isinstance(value, property):
        return value.fget
    if isinstance(value, functools.partial):
        return value.func
    return getattr(value, '__func__', value)


def _used_by(function: types.FunctionType, methods: Mapping[str, list[Any]]) -> Iterator[Any]:
    """Yield the globals, methods and variables around it that a function reads."""
    names = {name for part in _parts_of(function.__code__) for name in part.co_names}
    for name in names:
        value = function.__globals__.get(name)
        if isinstance(value, types.ModuleType | type):
            yield from (vars(value).get(each) for each in {*names, '__init__'})
        else:
            yield value
        yield from methods.get(name, ())
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # a variable that has no value yet
            yield cell.cell_contents
