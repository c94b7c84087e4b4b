"""Output shapes of operations on the meta device, computed without their kernels where possible.

Many meta kernels are written in Python and take many times as long as computing a shape. Shortcuts
cover most operations of a network. For all others the kernel runs, unless it has run on such
arguments before.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from easypruner.base.nested import map_tensors, tensors_in
from easypruner.graph.recording.grouped_products import multiply_groups
from easypruner.graph.recording.meta_memory import remember
from easypruner.graph.recording.meta_shortcuts import META, find_shortcut


def run_operation(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run an operation, on the meta device by its shortcut if there is one."""
    shortcut = find_shortcut(func)
    if shortcut is multiply_groups:
        return multiply_groups(*args, **kwargs)
    if not _is_meta(args) and kwargs.get('device') != META:
        return _run_kernel(func, args, kwargs)
    if shortcut is not None:
        result = shortcut(*args, **kwargs)
        if result is not NotImplemented:
            return result
    return remember(func, args, kwargs, _run_kernel)


def tensors_of(values: Iterable[Any]) -> tuple[Tensor, ...]:
    """Return the tensors among the arguments, or results, of an operation and in lists of them."""
    found: list[Tensor] = []
    for value in values:
        kind = type(value)
        # The most frequent types come first: torch decides in Python what a tensor is.
        if kind is Tensor or isinstance(value, Tensor):
            found.append(value)
        elif kind is int or value is None:
            continue
        elif isinstance(value, (list, tuple)):
            found.extend(item for item in value if isinstance(item, Tensor))
    return tuple(found)


def _is_meta(args: tuple[Any, ...]) -> bool:
    first = args[0] if args else None
    if type(first) is Tensor:
        return first.is_meta
    if isinstance(first, list | tuple):
        first = first[0] if first else None
    return isinstance(first, Tensor) and first.is_meta


def _run_kernel(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run torch's kernel. If meta tensors are mixed with others, move the others to meta first."""
    try:
        return func(*args, **kwargs)
    except RuntimeError:
        on_meta = {tensor.is_meta for _, tensor in tensors_in([args, kwargs])}
        if len(on_meta) < 2:
            raise
    args, kwargs = map_tensors((args, kwargs), lambda tensor: tensor.to('meta'))
    return func(*args, **kwargs)
