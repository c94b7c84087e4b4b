"""Whether the code of a network may compare widths, as far as its bytecode shows it."""

from __future__ import annotations

import contextlib
import dis
import functools
import types
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import nn

from easypruner.base.user_code import is_foreign
from easypruner.graph.recording.config_numbers import has_numbers, numbers_of

_LEAST_WIDTH = 4
_SHAPES = frozenset({'shape', 'size', 'numel', 'nelement', 'stride', 'nbytes'})
_COMPARING = frozenset({
    'min', 'max', 'sorted', 'set', 'eq', 'ne', 'lt', 'le', 'gt', 'ge',
    'range', 'arange', 'get', 'getattr',
})  # fmt: skip
"""Names of functions that compare numbers, or by which code runs or chooses parts by a number."""
_OPERATIONS = ('COMPARE_OP', 'CONTAINS_OP', 'BINARY_MODULO', 'INPLACE_MODULO')
_DECIDING = ('POP_JUMP', 'JUMP_IF', 'TO_BOOL', 'UNARY_NOT', 'BINARY_SUBSCR')
_ITEMS = ('BINARY_SUBSCR', 'BINARY_SLICE')
_LOADS = ('LOAD_FAST', 'LOAD_DEREF')
_PLAIN = frozenset({bool, int, float, str, type(None), torch.Tensor})
_REGISTERED = ('_parameters', '_buffers', '_modules')
_CALLED = ('forward', '__call__')
_FOREIGN = ('torch.', 'builtins', 'collections')


class _Code(NamedTuple):
    """What a function does, with the functions in it.

    Attributes:
        names: the attributes and globals that it reads.
        compares: whether it compares numbers, or asks for a remainder.
        own: the names by which other functions read this one.
    """

    names: frozenset[str]
    compares: bool
    own: frozenset[str] = frozenset()

    def reads(self, names: Set[str]) -> bool:
        """Return whether it reads one of some names."""
        return not names.isdisjoint(self.names)


@dataclass(frozen=True)
class Comparisons:
    """What the code of a network may compare with widths.

    Attributes:
        anything: whether it may compare widths at all.
        numbers: whether it may do so with numbers of modules that equal a width.
    """

    anything: bool
    numbers: bool


def find_comparisons(modules: Iterable[nn.Module]) -> Comparisons:
    """Return what code of modules may compare with widths.

    A function may do so if it compares values, and either reads a shape, or a number of a module
    that equals a width, or may get one from another function.

    Args:
        modules: all modules of a network.

    >>> class Block(nn.Module):
    ...     def forward(self, x, y):
    ...         return x + y if x.shape == y.shape else y
    >>> find_comparisons([Block()])
    Comparisons(anything=True, numbers=False)
    >>> find_comparisons([nn.Linear(8, 8)])
    Comparisons(anything=False, numbers=False)
    """
    listed = list(modules)
    codes = [
        _read(function.__code__)._replace(own=frozenset(own))
        for function, own in _functions_of(listed).items()
    ]
    if not any(code.compares for code in codes):
        return Comparisons(False, False)
    numbers = _width_numbers(listed, {name for code in codes for name in code.names})
    return Comparisons(_is_compared(codes, _SHAPES | numbers), _is_compared(codes, numbers))


def _is_compared(codes: Iterable[_Code], names: Set[str]) -> bool:
    """Return whether functions may compare attributes of some names.

    A function may read them itself. Or it gets them from another one that calls it, from one that
    it calls, or from a third one that calls both.
    """
    listed = list(codes)
    readers = {own for code in listed if code.reads(names) for own in code.own}
    handed = {
        name for code in listed if code.reads(names) or code.reads(readers) for name in code.names
    }
    return any(
        code.compares
        and (code.reads(names) or code.reads(readers) or not handed.isdisjoint(code.own))
        for code in listed
    )


def _width_numbers(modules: Iterable[nn.Module], read: Set[str]) -> set[str]:
    """Return the names of the numbers, of any module or config, that equal widths of parameters.

    Args:
        modules: the modules.
        read: the names that code reads.
    """
    listed = list(modules)
    widths = {
        size
        for module in listed
        for tensor in module._parameters.values()
        if tensor is not None
        for size in tensor.shape[:2]
        if size >= _LEAST_WIDTH
    }
    owners = [own for module in listed for own in (vars(module), *_configs_of(module, read))]
    return {
        name
        for own in owners
        for name in own.keys() & read
        if not widths.isdisjoint(numbers_of(own[name]) or ())
    }


def _configs_of(module: nn.Module, read: Set[str]) -> list[dict[str, Any]]:
    """Return the attributes of the configs of a module that code reads."""
    own = vars(module)
    return [vars(own[name]) for name in own.keys() & read if has_numbers(own[name])]


@lru_cache(4096)
def _read(code: types.CodeType) -> _Code:
    names: set[str] = set()
    compares = False
    for part in _parts_of(code):
        names.update(part.co_names, part.co_freevars)
        compares = compares or _compares(part)
    return _Code(frozenset(names), compares)


def _compares(code: types.CodeType) -> bool:
    """Return whether code compares values, tests if a number is 0, or chooses an item by one."""
    if not _COMPARING.isdisjoint(code.co_names):
        return True
    arguments = set(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])
    is_result = False
    for step in dis.get_instructions(code):
        if step.opname in _OPERATIONS or (is_result and step.opname.startswith(_DECIDING)):
            return True
        is_result = (
            step.opname.startswith(('BINARY_', 'INPLACE_')) and step.opname not in _ITEMS
        ) or (step.opname in _LOADS and step.argval not in arguments)
        if is_result and step.argrepr.startswith('%'):
            return True
    return False


def _parts_of(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _parts_of(constant)


def _functions_of(modules: Iterable[nn.Module]) -> dict[types.FunctionType, set[str]]:
    """Return the functions that calls of modules may run, with the names by which code reads them.

    Those of torch and of Python are left out. Methods are found by their names: a call of
    ``self.merge`` may run any method of this name.
    """
    listed = list(modules)
    attributes = [
        (name, value)
        for module in listed
        for name, value in vars(module).items()
        if type(value) not in _PLAIN and name not in _REGISTERED and not _is_empty(value)
    ]
    methods: dict[str, list[Any]] = {}
    kinds = {type(module) for module in listed} | {type(value) for _, value in attributes}
    for cls in {cls for kind in kinds for cls in kind.__mro__}:
        if not cls.__module__.startswith(_FOREIGN):
            for name, value in vars(cls).items():
                methods.setdefault(name, []).append(value)
    values = [(name, value) for name in _CALLED for value in methods.get(name, ())]
    values += [pair for pair in attributes if isinstance(pair[1], dict) or callable(pair[1])]
    found: dict[types.FunctionType, set[str]] = {}
    seen: set[tuple[str, int]] = set()
    while values:
        name, wrapped = values.pop()
        value = _unwrap(wrapped)
        if (name, id(value)) in seen:
            continue
        seen.add((name, id(value)))
        if isinstance(value, dict):
            values += [(name, each) for each in value.values()]
        elif isinstance(value, types.FunctionType) and not is_foreign(value.__code__.co_filename):
            if value not in found:
                values += _used_by(value, methods)
            found.setdefault(value, set()).add(name)
    return found


def _is_empty(value: Any) -> bool:
    return isinstance(value, dict | set) and not value


def _unwrap(value: Any) -> Any:
    """Return the function in a method, a property or what has some of its arguments."""
    if isinstance(value, property):
        return value.fget
    if isinstance(value, functools.partial):
        return value.func
    return getattr(value, '__func__', value)


def _used_by(
    function: types.FunctionType, methods: Mapping[str, list[Any]]
) -> Iterator[tuple[str, Any]]:
    """Yield the globals, methods and variables around it that a function reads, with names."""
    names = {name for part in _parts_of(function.__code__) for name in part.co_names}
    for name in names:
        value = function.__globals__.get(name)
        if isinstance(value, types.ModuleType | type):
            yield from ((each, vars(value).get(each)) for each in {*names, '__init__'})
        else:
            yield name, value
        yield from ((name, method) for method in methods.get(name, ()))
    variables = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    for name, cell in variables:
        with contextlib.suppress(ValueError):  # a variable that has no value yet
            yield name, cell.cell_contents
