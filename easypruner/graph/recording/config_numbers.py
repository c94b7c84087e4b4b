"""Numbers of modules: attributes, and the numbers of their configs, which a pass may read too.

``config.num_heads`` is the name of a number of the config under ``config`` of a module. Modules
share configs; a module for which a number changes gets a config of its own. A config is one of
Hugging Face, an object of plain values, such as a dataclass of options, or a dict of options.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any

from torch import Tensor, nn

_HEAP_TYPE, _IMMUTABLE = 1 << 9, 1 << 8
"""Flags of classes: made at run time, as Python code makes them; and of those that stay as made."""


_READ_INSTEAD = {'axes_lengths': '_axes_lengths'}
"""The dict of lengths of a layer of einops -> the tuple of its items, which its forward reads."""


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


def is_options(value: Any) -> bool:
    """Return whether a value is a dict of options: names -> values that are no parts of a network.

    Torch's own dicts of a module are mostly empty, or have parts or hooks.
    """
    return isinstance(value, dict) and any(
        type(name) is str and numbers_of(number) is not None for name, number in value.items()
    )


def name_read_for(module: nn.Module, name: str) -> str:
    """Return the attribute that code reads to get the options under a name of a module."""
    other = _READ_INSTEAD.get(name, name)
    return other if other in vars(module) else name


def attributes_of(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield the names and values of the attributes of a module, and those of its configs."""
    for name, value in vars(module).items():
        yield name, value
        yield from ((f'{name}.{key}', number) for key, number in _values_in(value).items())


def attribute_of(module: nn.Module, name: str) -> Any:
    """Return the value of an attribute, or of a number of a config; None if there is none."""
    first, _, rest = name.partition('.')
    value = vars(module).get(first)
    return _values_in(value).get(rest) if rest else value


def _values_in(value: Any) -> Mapping[str, Any]:
    """Return name -> value of a config; nothing for anything else."""
    if is_options(value):
        found: Mapping[str, Any] = value
        return found
    return vars(value) if has_numbers(value) else {}


def set_attribute(module: nn.Module, name: str, value: Any) -> None:
    """Set an attribute of a module, or a number of its config, for this module alone."""
    first, _, rest = name.partition('.')
    if not rest:
        setattr(module, name, value)
    elif attribute_of(module, name) != value:
        own = copy.copy(vars(module)[first])
        # A dict may have its items as attributes as well; an object may be a frozen dataclass.
        for content in (own if isinstance(own, dict) else {}, getattr(own, '__dict__', {})):
            if rest in content:
                content[rest] = value
        setattr(module, first, own)
        read = name_read_for(module, first)
        if read != first:
            setattr(module, read, tuple(own.items()))


def numbers_of(value: Any) -> tuple[int, ...] | None:
    """Return the integers of an attribute; None if it holds anything else."""
    if type(value) is int:
        return (value,)
    if type(value) in (list, tuple) and value and all(type(number) is int for number in value):
        return tuple(value)
    return None
