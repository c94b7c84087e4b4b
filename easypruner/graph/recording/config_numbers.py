"""Numbers of modules: attributes, and the numbers of their configs, which a pass may read too.

``config.num_heads`` is the name of a number of the config under ``config`` of a module. Modules
share configs; a module for which a number changes gets a config of its own. A config is one of
Hugging Face, an object of plain values, such as a dataclass of options, a dict of options, or a
list or tuple of several things. Configs may be in configs: ``config.attention.heads``.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_HEAP_TYPE, _IMMUTABLE = 1 << 9, 1 << 8
"""Flags of classes: made at run time, as Python code makes them; and of those that stay as made."""

_SEQUENCES = (list, tuple, torch.Size)
_DEEPEST = 3
"""How deep numbers are looked for in configs. One of Hugging Face names its own numbers."""

_MOST_ENTRIES = 64
"""More entries has a table, such as a vocabulary, but no config."""

_READ_INSTEAD = {'axes_lengths': '_axes_lengths'}
"""The dict of lengths of a layer of einops -> the tuple of its items, which its forward reads."""

_WHOLE = frozenset({*vars(nn.Module()), *_READ_INSTEAD.values()})
"""The attributes that hold no config: torch's own, and copies of others."""


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


def name_read_for(module: nn.Module, name: str) -> str:
    """Return the attribute that code reads to get what is under a name of a module."""
    other = _READ_INSTEAD.get(name, name)
    return other if other in vars(module) else name


def attributes_of(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield the names and values of the attributes of a module, and those in its configs."""
    own = vars(module)
    for name, value in own.items():
        deepest = 0 if name in _WHOLE else 1 if is_config(value) else _DEEPEST
        yield from _values_under(name, value, deepest)
    for name, value in _constants_of(type(module)).items():
        if name not in own:
            yield name, value


def _constants_of(kind: type) -> Mapping[str, Any]:
    """Return name -> the numbers that a class gives all its modules, besides classes of torch."""
    return {
        name: value
        for base in reversed(kind.__mro__)
        if base is not object and not base.__module__.startswith('torch.')
        for name, value in vars(base).items()
        if not name.startswith('_') and numbers_of(value) is not None
    }


def _values_under(name: str, value: Any, deepest: int) -> Iterator[tuple[str, Any]]:
    """Yield the name and the value of an attribute, and those of the values in it."""
    yield name, value
    if deepest:
        for key, inner in _content_of(value).items():
            yield from _values_under(f'{name}.{key}', inner, deepest - 1)


def attribute_of(module: nn.Module, name: str) -> Any:
    """Return the value of an attribute, or of a number of a config; None if there is none."""
    first, *keys = name.split('.')
    own = vars(module)
    value = own[first] if first in own else _constants_of(type(module)).get(first)
    for key in keys:
        value = _content_of(value).get(key)
    return value


def owner_of(module: nn.Module, name: str) -> tuple[Any, str]:
    """Return the object, and its attribute, that code reads to get a number of a module.

    That of a number in a dict or a list is the attribute that holds the dict: reads of items are
    not seen, nor those of attributes of an object whose class cannot be changed.
    """
    first, *keys = name.split('.')
    owner: tuple[Any, str] = module, name_read_for(module, first)
    value = vars(module).get(first)
    for key in keys:
        if has_numbers(value) and not isinstance(value, dict):
            owner = value, key
        value = _content_of(value).get(key)
    return owner


def _content_of(value: Any) -> Mapping[str, Any]:
    """Return key -> value of a config, and of what else may hold numbers; nothing for the rest."""
    if isinstance(value, dict):
        few = len(value) <= _MOST_ENTRIES
        return {str(k): v for k, v in value.items() if type(k) in (str, int)} if few else {}
    if isinstance(value, list | tuple):
        few = len(value) <= _MOST_ENTRIES and numbers_of(value) is None
        return {str(k): v for k, v in enumerate(value)} if few else {}
    return vars(value) if has_numbers(value) or type(value) is SimpleNamespace else {}


def set_attribute(module: nn.Module, name: str, value: Any) -> None:
    """Set an attribute of a module, or a number of its config, for this module alone."""
    first, *keys = name.split('.')
    if not keys:
        setattr(module, name, value)
    elif attribute_of(module, name) != value:
        own = _replace(vars(module)[first], keys, value)
        setattr(module, first, own)
        read = name_read_for(module, first)
        if read != first:
            setattr(module, read, tuple(own.items()))


def _replace(whole: Any, keys: Sequence[str], value: Any) -> Any:
    """Return a copy of a config with another value in it."""
    key, *inner = keys
    value = _replace(_content_of(whole)[key], inner, value) if inner else value
    if isinstance(whole, tuple):
        items = [*whole[: int(key)], value, *whole[int(key) + 1 :]]
        return whole._make(items) if hasattr(whole, '_make') else type(whole)(items)
    own = copy.copy(whole)
    if isinstance(own, list):
        own[int(key)] = value
        return own
    # A dict may have its items as attributes as well; an object may be a frozen dataclass.
    attributes = getattr(own, '__dict__', {})
    contents = (own, attributes) if isinstance(own, dict) else (attributes,)
    found = [(content, name) for content in contents for name in content if str(name) == key]
    for content, name in found or [(contents[0], key)]:
        content[name] = value
    return own


def numbers_of(value: Any) -> tuple[int, ...] | None:
    """Return the integers of an attribute; None if it holds anything else."""
    if type(value) is int or isinstance(value, np.integer):
        return (int(value),)
    if type(value) in _SEQUENCES and value and all(type(number) is int for number in value):
        return tuple(value)
    return None
