"""Numbers of modules: attributes, and the numbers of their configs, which a pass may read too.

``config.num_heads`` is the name of a number of the config under ``config`` of a module. Modules
share configs; a module for which a number changes gets a config of its own.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from torch import nn


def is_config(value: Any) -> bool:
    """Return whether a value is a config of Hugging Face."""
    return callable(getattr(type(value), 'to_json_string', None)) and hasattr(value, 'model_type')


def attributes_of(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield the names and values of the attributes of a module, and those of its configs."""
    for name, value in vars(module).items():
        yield name, value
        if is_config(value):
            yield from ((f'{name}.{key}', number) for key, number in vars(value).items())


def attribute_of(module: nn.Module, name: str) -> Any:
    """Return the value of an attribute, or of a number of a config; None if there is none."""
    first, _, rest = name.partition('.')
    value = vars(module).get(first)
    return vars(value).get(rest) if rest and is_config(value) else None if rest else value


def set_attribute(module: nn.Module, name: str, value: Any) -> None:
    """Set an attribute of a module, or a number of its config, for this module alone."""
    first, _, rest = name.partition('.')
    if not rest:
        setattr(module, name, value)
    elif attribute_of(module, name) != value:
        own = copy.copy(vars(module)[first])
        setattr(own, rest, value)
        setattr(module, first, own)


def numbers_of(value: Any) -> tuple[int, ...] | None:
    """Return the integers of an attribute; None if it holds anything else."""
    if type(value) is int:
        return (value,)
    if type(value) in (list, tuple) and value and all(type(number) is int for number in value):
        return tuple(value)
    return None
