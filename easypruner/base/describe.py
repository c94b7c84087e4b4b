"""Descriptions of values for error messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_SHOWN = 4
_LONGEST = 200


def shown(value: Any) -> str:
    """Return the ``repr`` of a value for a message, shortened if it is long.

    >>> shown([1, 2]), len(shown('x' * 5000))
    ('[1, 2]', 200)
    """
    text = repr(value)
    return text if len(text) <= _LONGEST else f'{text[: _LONGEST - 4]} ...'


def describe(value: Any) -> str:
    """Describe a value by its type and, for containers and tensors, by its contents and shape.

    >>> import torch
    >>> describe([torch.zeros(2, 3), {'y': 'a'}])
    "a list [a float32 tensor of shape (2, 3), {'y': a str}]"
    >>> describe(3), describe(None)
    ('an int', 'None')
    """
    containers = isinstance(value, Mapping | tuple | list)
    return f'a {type(value).__qualname__} {_inner(value)}' if containers else _inner(value)


def _inner(value: Any) -> str:
    if value is None:
        return 'None'
    if isinstance(value, Mapping):
        return f'{{{_first([f"{key!r}: {_inner(item)}" for key, item in value.items()])}}}'
    if isinstance(value, tuple | list):
        parts = _first([_inner(item) for item in value[:_SHOWN]], len(value))
        return f'({parts})' if isinstance(value, tuple) else f'[{parts}]'
    kind = type(value).__qualname__
    shape, dtype = getattr(value, 'shape', None), getattr(value, 'dtype', None)
    if dtype is not None:
        kind = f'{str(dtype).removeprefix("torch.")} {kind.lower()}'
    # The article follows the sound, not the letter: an int, a uint8.
    article = 'an' if kind.lower().startswith(('a', 'e', 'i', 'o', 'nd')) else 'a'
    return f'{article} {kind}' + (f' of shape {tuple(shape)}' if shape is not None else '')


def _first(parts: Sequence[str], total: int = 0) -> str:
    more = max(len(parts), total) - _SHOWN
    return ', '.join([*parts[:_SHOWN], *([f'and {more} more'] if more > 0 else [])])
