"""Checks of arguments: each returns the value, or raises an error that says what was expected."""

from __future__ import annotations

import math
import os
from collections.abc import Collection
from typing import Any, NoReturn

from easypruner.errors import ConfigError, nearest


def refuse(value: Any, argument: str, owner: str, expected: str) -> NoReturn:
    """Raise the error of an argument.

    Args:
        value: as a config gives it.
        argument: its name.
        owner: whose argument it is.
        expected: what would be right, such as ``'a number above 0'``.

    Raises:
        ConfigError: always.
    """
    raise ConfigError(f'{argument}={value!r} of {owner}; expected {expected}')


def is_number(value: Any) -> bool:
    """Tell whether a value is a finite number; True and False are not."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)


def check_number(
    value: Any,
    argument: str,
    owner: str,
    least: float = -math.inf,
    most: float = math.inf,
    above: float = -math.inf,
) -> float:
    """Return a finite number.

    Args:
        value: as a config gives it.
        argument: its name, for the message.
        owner: whose argument it is.
        least: the smallest that is allowed.
        most: the largest that is allowed.
        above: it has to be larger than this.

    Raises:
        ConfigError: it is not one.

    >>> check_number(0.5, 'keep', 'Ratio', least=0, most=1)
    0.5
    >>> check_number('half', 'keep', 'Ratio', least=0, most=1)
    Traceback (most recent call last):
    easypruner.errors.ConfigError: keep='half' of Ratio; expected a number from 0 to 1
    """
    if not is_number(value) or not least <= value <= most or value <= above:
        refuse(value, argument, owner, f'a number{_range(least, most, above)}')
    return float(value)


def _range(least: float, most: float, above: float) -> str:
    """Say which numbers are allowed, as in ' above 0 and up to 1'."""
    bounded = most < math.inf
    if above > -math.inf:
        return f' above {above:g}' + (f' and up to {most:g}' if bounded else '')
    if least > -math.inf:
        return f' from {least:g} to {most:g}' if bounded else f' of at least {least:g}'
    return f' up to {most:g}' if bounded else ''


def check_share(value: Any, argument: str, owner: str) -> float:
    """Return a share: a number from 0 to 1.

    Raises:
        ConfigError: it is not one.
    """
    return check_number(value, argument, owner, least=0, most=1)


def check_count(value: Any, argument: str, owner: str, least: int = 1) -> int:
    """Return a whole number of at least ``least``.

    Raises:
        ConfigError: it is not one.
    """
    if type(value) is not int or value < least:
        refuse(value, argument, owner, f'a whole number of at least {least}')
    return value


def check_name(value: Any, argument: str, owner: str, known: Collection[str]) -> str:
    """Return a name that is one of ``known``.

    Raises:
        ConfigError: it is not; the message has the nearest.
    """
    if not isinstance(value, str) or value not in known:
        raise ConfigError(
            f'{argument}={value!r} of {owner} is not known; {nearest(str(value), known)}'
        )
    return value


def check_flag(value: Any, argument: str, owner: str) -> bool:
    """Return True or False.

    Raises:
        ConfigError: it is neither.
    """
    if not isinstance(value, bool):
        refuse(value, argument, owner, 'True or False')
    return value


def check_text(value: Any, argument: str, owner: str) -> str | None:
    """Return a text, or None.

    Raises:
        ConfigError: it is neither.
    """
    if value is not None and not isinstance(value, str):
        refuse(value, argument, owner, 'a text, or None')
    return value


def check_path(value: Any, argument: str, owner: str) -> str:
    """Return the path of a file or folder.

    Raises:
        ConfigError: it is not one.
    """
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        refuse(value, argument, owner, 'the path of a file')
    return str(os.fspath(value))
