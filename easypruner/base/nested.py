"""Nested values: the tensors inside tuples, lists, dicts and dataclasses.

``torch.utils._pytree`` cannot be used, because it treats a subclass of dict, such as an MMEngine
config, as a leaf.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor


def map_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return a copy of ``value`` in which ``change`` has replaced every tensor."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: map_tensors(item, change) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, '_fields'):
        return type(value)(*(map_tensors(item, change) for item in value))
    if isinstance(value, tuple | list):
        return type(value)(map_tensors(item, change) for item in value)
    return value


def tensors_in(value: Any, path: str = '') -> Iterator[tuple[str, Tensor]]:
    """Yield (path, tensor) for every tensor inside tuples, lists, dicts and dataclasses."""
    if isinstance(value, Tensor):
        yield path or 'output', value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from tensors_in(item, f'{path}[{key!r}]')
    elif isinstance(value, tuple | list):
        for position, item in enumerate(value):
            yield from tensors_in(item, f'{path}[{position}]')
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for entry in dataclasses.fields(value):
            yield from tensors_in(getattr(value, entry.name), f'{path}.{entry.name}')
