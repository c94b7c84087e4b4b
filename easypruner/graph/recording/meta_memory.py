"""Outputs of operations on the meta device, remembered by the shapes of their arguments.

Many meta kernels are written in Python and take a hundred times as long as making a tensor. A
network repeats its layers, and a trial runs it many times, so most operations have run on arguments
of the same shapes before.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from easypruner.graph.recording.kinds import kind_of, once_each

_MOST = 10_000
_PLAIN = (int, float, bool, str, torch.dtype, torch.device, torch.layout, torch.memory_format)

_Run = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]
_Made = tuple[torch.Size, tuple[int, ...], torch.dtype]
"""The shape, strides and dtype of an output."""

_known: dict[Hashable, _Made | list[_Made]] = {}


class _UnknownError(Exception):
    """An argument does not tell what the operation returns."""


def remember(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], run: _Run) -> Any:
    """Return what an operation returns on the meta device; run it if that is not known yet.

    Args:
        func: the operation.
        args: its arguments.
        kwargs: its named arguments.
        run: runs its kernel.
    """
    if not _depends_on_shapes(func):
        return run(func, args, kwargs)
    try:
        key = (id(func), torch.get_default_dtype(), _keys(args), _keys(kwargs.items()))
    except _UnknownError:
        return run(func, args, kwargs)
    made = _known.get(key)
    if made is None:
        result = run(func, args, kwargs)
        found = _describe(result)
        if found is not None:
            if len(_known) >= _MOST:
                _known.clear()
            _known[key] = found
        return result
    return [_make(each) for each in made] if isinstance(made, list) else _make(made)


@once_each
def _depends_on_shapes(func: Any) -> bool:
    """Return whether the outputs are new tensors whose shapes follow from those of the inputs."""
    kind = kind_of(func)
    if kind.is_composite or kind.asks_values or func.namespace != 'aten':
        return False
    schema = func._schema
    values = (*schema.arguments, *schema.returns)
    # An output that shares memory with an argument must go on doing so.
    makes_new = all(value.alias_info is None for value in values)
    return makes_new and [str(value.type) for value in schema.returns] in (['Tensor'], ['Tensor[]'])


def _keys(values: Iterable[Any]) -> Hashable:
    return tuple([_key(value) for value in values])


def _key(value: Any) -> Hashable:
    """Return what of an argument decides about shapes.

    Raises:
        _UnknownError: more decides than is seen here.
    """
    kind = type(value)
    if kind is Tensor or kind is Parameter:
        # Numbers of Python's become tensors on the CPU, whose dtype counts less. What a complex
        # tensor is a conjugate of is not asked.
        if not value.is_meta or value.is_complex():
            raise _UnknownError
        return value.shape, value.stride(), value.dtype
    if kind in (list, tuple):
        return _keys(value)
    if value is None or kind in _PLAIN:
        return kind, value  # 1, 1.0 and True are equal
    raise _UnknownError


def _describe(result: Any) -> _Made | list[_Made] | None:
    """Return what a result is made of; None if it is more than plain tensors on meta."""
    if isinstance(result, list | tuple):
        found = [_describe(tensor) for tensor in result]
        return [each for each in found if isinstance(each, tuple)] if all(found) else None
    if type(result) is not Tensor or not result.is_meta or result.layout is not torch.strided:
        return None
    return result.shape, result.stride(), result.dtype


def _make(made: _Made) -> Tensor:
    shape, strides, dtype = made
    return torch.empty_strided(shape, strides, dtype=dtype, device='meta')
