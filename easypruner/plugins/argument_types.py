"""Types of arguments: values of a config are compared with the type hints of a constructor."""

from __future__ import annotations

import inspect
import numbers
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from easypruner.base.describe import shown

_NAMES: Mapping[Any, str] = {
    int: 'a whole number', float: 'a number', str: 'a string', bool: 'True or False',
    type(None): 'None', Mapping: 'a dict', dict: 'a dict', Sequence: 'a list', list: 'a list',
    tuple: 'a list',
}  # fmt: skip


def type_faults(cls: type[Any], arguments: Mapping[str, Any]) -> Iterator[str]:
    """Yield a message for each argument that has another type than its hint allows.

    Hints that are not understood allow everything.

    Args:
        cls: a class.
        arguments: the arguments for its constructor, with components that are already built.
    """
    try:
        hints = typing.get_type_hints(cls.__init__)
    except (NameError, TypeError, AttributeError):
        return
    parameters = inspect.signature(cls).parameters
    for name, value in arguments.items():
        if name not in hints or value is parameters[name].default:
            continue
        allowed = tuple(_alternatives(hints[name]))
        if allowed and not any(_fits(value, kind) for kind in allowed):
            expected = ' or '.join(dict.fromkeys(map(_describe, allowed)))
            yield f'{name}={shown(value)} of {cls.__name__}; expected {expected}'


def _alternatives(hint: Any) -> Iterator[Any]:
    """Yield the classes of a hint, such as int and NoneType of ``int | None``."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        for part in typing.get_args(hint):
            yield from _alternatives(part)
    elif origin is typing.Literal:
        yield from {type(value) for value in typing.get_args(hint)}
    else:
        kind = origin or hint
        yield kind if inspect.isclass(kind) and kind is not Any else object


def _fits(value: Any, kind: type[Any]) -> bool:
    if kind in (int, float):
        number = isinstance(value, numbers.Integral) if kind is int else hasattr(value, '__float__')
        return number and not isinstance(value, bool)
    if kind in (Sequence, list, tuple):
        return isinstance(value, list | tuple) or (isinstance(value, kind) and not _is_text(value))
    try:
        return isinstance(value, kind)
    except TypeError:
        return True


def _is_text(value: Any) -> bool:
    return isinstance(value, str | bytes)


def _describe(kind: type[Any]) -> str:
    return _NAMES.get(kind) or f'a {kind.__name__}'
