"""Checks of arguments: each returns the value, or raises an error that says what is expected."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Collection
from typing import Any, NoReturn

from easypruner.base.describe import shown
from easypruner.errors import ConfigError, nearest


def refuse(value: Any, argument: str, owner: str, expected: str) -> NoReturn:
    """Raise the error for an argument that cannot be used.

    Args:
        value: the argument's value, as the config states it.
        argument: the argument's name.
        owner: the class or function that takes the argument.
        expected: a description of valid values, such as ``'a number above 0'``.

    Raises:
        ConfigError: always.
    """
    raise ConfigError(f'{argument}={shown(value)} of {owner}; expected {expected}')


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number. True and False do not count as numbers."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    # A whole number may be too large for a float.
    return number and abs(value) <= sys.float_info.max


def check_number(
    value: Any,
    argument: str,
    owner: str,
    least: float = -math.inf,
    most: float = math.inf,
    above: float = -math.inf,
    below: float = math.inf,
) -> float:
    """Return a finite number.

    Args:
        value: the argument's value, as the config states it.
        argument: the argument's name.
        owner: the class or function that takes the argument.
        least: the smallest valid value.
        most: the largest valid value.
        above: the value must be larger than this number.
        below: the value must be smaller than this number.

    Raises:
        ConfigError: the value is not a finite number in this range.

    >>> check_number(0.5, 'keep', 'Ratio', least=0, most=1)
    0.5
    >>> check_number('half', 'keep', 'Ratio', least=0, most=1)
    Traceback (most recent call last):
    easypruner.errors.ConfigError: keep='half' of Ratio; expected a number from 0 to 1
    """
    if not is_number(value) or not least <= value <= most or not above < value < below:
        under = f' and below {below:g}' if below < math.inf else ''
        refuse(value, argument, owner, f'a number{describe_range(least, most, above)}{under}')
    return float(value)


def describe_range(least: float, most: float, above: float = -math.inf) -> str:
    """Return a phrase for a range of numbers, such as ' above 0 and up to 1'.

    >>> describe_range(0, 1), describe_range(1, math.inf), describe_range(-math.inf, math.inf)
    (' from 0 to 1', ' of at least 1', '')
    """
    bounded = most < math.inf
    if above > -math.inf:
        return f' above {above:g}' + (f' and up to {most:g}' if bounded else '')
    if least > -math.inf:
        return f' from {least:g} to {most:g}' if bounded else f' of at least {least:g}'
    return f' up to {most:g}' if bounded else ''


def check_share(value: Any, argument: str, owner: str) -> float:
    """Return a share, which is a number from 0 to 1.

    Raises:
        ConfigError: the value is not such a number.
    """
    return check_number(value, argument, owner, least=0, most=1)


MOST = 2**32 - 1
"""The largest count. What is counted is done or stored one by one."""


def check_count(value: Any, argument: str, owner: str, least: int = 1, most: int = MOST) -> int:
    """Return a whole number from ``least`` to ``most``.

    Raises:
        ConfigError: the value is not such a number.
    """
    whole = type(value) is int
    if not whole or not least <= value <= most:
        open_end = most == MOST and not (whole and value > most)
        expected = f'of at least {least}' if open_end else f'from {least} to {most}'
        refuse(value, argument, owner, f'a whole number {expected}')
    return int(value)


def check_name(value: Any, argument: str, owner: str, known: Collection[str]) -> str:
    """Return a name that is in ``known``.

    Raises:
        ConfigError: it is not; the message suggests the nearest known name.
    """
    if not isinstance(value, str) or value not in known:
        raise ConfigError(
            f'{argument}={value!r} of {owner} is not known; {nearest(str(value), known)}'
        )
    return value


def check_flag(value: Any, argument: str, owner: str) -> bool:
    """Return True or False.

    Raises:
        ConfigError: the value is neither.
    """
    if not isinstance(value, bool):
        refuse(value, argument, owner, 'True or False')
    return value


def check_text(value: Any, argument: str, owner: str) -> str | None:
    """Return a string, or None.

    Raises:
        ConfigError: the value is neither.
    """
    if value is not None and not isinstance(value, str):
        refuse(value, argument, owner, 'a string or None')
    return value


def check_path(value: Any, argument: str, owner: str) -> str:
    """Return the path of a file or folder as a string.

    Raises:
        ConfigError: the value is not a path.
    """
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        refuse(value, argument, owner, 'the path of a file')
    return str(os.fspath(value))
