"""Numbers of modules: attributes, and the numbers of their configs, which a pass may read too.

``config.num_heads`` is the name of a number of the config under ``config`` of a module. Modules
share configs; a module for which a number changes gets a config of its own. A config is one of
Hugging Face, or an object of plain values, such as a dataclass of options.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from enum import Enum
from typing import Any

from torch import Tensor, nn

_HEAP_TYPE, _IMMUTABLE = 1 << 9, 1 << 8
"""Flags of classes: made at run time, as Python code makes them; and of those that stay as made."""


def is_config(value: Any) -> bool:
    """Return whether a value is a config of Hugging Face."""
    return callable(getattr(type(value), 'to_json_string', None)) and hasattr(value, 'model_type')


def has_numbers(value: Any) -> bool:
    """Return whether a value is a config: an object whose attributes are no parts of a network.

    Reads of its numbers can be watched only if its class can be changed.
    """
    flags = type(value).__flags__
    if not flags & _HEAP_TYPE or flags & _IMMUTABLE or isinstance(value, Enum) or _is_part(value):
        return False
    content = getattr(value, '__dict__', None) or {}
    return is_config(value) or (bool(content) and not any(map(_is_part, content.values())))


def _is_part(value: Any) -> bool:
    """Return whether a value is a module or tensor, or has some."""
    if isinstance(value, list | tuple):
        return any(map(_is_part, value))
    return isinstance(value, nn.Module | Tensor)


def attributes_of(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield the names and values of the attributes of a module, and those of its configs."""
    for name, value in vars(module).items():
        yield name, value
        if has_numbers(value):
            yield from ((f'{name}.{key}', number) for key, number in vars(value).items())


def attribute_of(module: nn.Module, name: str) -> Any:
    """Return the value of an attribute, or of a number of a config; None if there is none."""
    first, _, rest = name.partition('.')
    value = vars(module).get(first)
    return vars(value).get(rest) if rest and has_numbers(value) else None if rest else value


def set_attribute(module: nn.Module, name: str, value: Any) -> None:
    """Set an attribute of a module, or a number of its config, for this module alone."""
    first, _, rest = name.partition('.')
    if not rest:
        setattr(module, name, value)
    elif attribute_of(module, name) != value:
        own = copy.copy(vars(module)[first])
        vars(own)[rest] = value  # it may be a frozen dataclass
        setattr(module, first, own)


def numbers_of(value: Any) -> tuple[int, ...] | None:
    """Return the integers of an attribute; None if it holds anything else."""
    if type(value) is int:
        return (value,)
    if type(value) in (list, tuple) and value and all(type(number) is int for number in value):
        return tuple(value)
    return None
