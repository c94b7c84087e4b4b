"""Arguments of operations, by position or name. Dimensions are counted from the front."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from easypruner.graph.recording.tape import Operation


def argument(operation: Operation, position: int, name: str, default: Any = None) -> Any:
    """Return an argument, given by position or by name."""
    if len(operation.args) > position:
        return operation.args[position]
    return operation.kwargs.get(name, default)


def wrap(dim: int, count: int) -> int:
    """Return a dimension counted from the front."""
    return dim + count if dim < 0 else dim


def wrap_all(dims: int | Iterable[int] | None, count: int) -> tuple[int, ...]:
    """Return dimensions counted from the front. None, or an empty list, means all of them."""
    if isinstance(dims, int):
        return (wrap(dims, count),) if count else ()
    chosen = tuple(wrap(dim, count) for dim in dims or ())
    return chosen or tuple(range(count))


def dim_argument(operation: Operation, position: int, default: int = 0) -> int:
    """Return a dimension of the first argument, which another argument names."""
    return wrap(argument(operation, position, 'dim', default), operation.args[0].dim())
