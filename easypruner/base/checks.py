"""Arguments: what several components check of theirs."""

from __future__ import annotations

import math
import os
from collections.abc import Collection
from typing import Any

from easypruner.errors import ConfigError, nearest


def check_count(value: Any, argument: str, owner: str, least: int = 1) -> int:
    """Return a whole number of at least ``least``.

    Args:
        value: as a config gives it.
        argument: its name, for the message.
        owner: whose argument it is.
        least: the smallest that is allowed.

    Raises:
        ConfigError: it is none.
    """
    if type(value) is not int or value < least:
        raise ConfigError(
            f'{argument}={value!r} of {owner} must be a whole number of at least {least}'
        )
    return value


def is_number(value: Any) -> bool:
    """Tell whether a value is a finite number; True and False are none."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)


def check_number(value: Any, argument: str, owner: str, least: float = 0.0) -> float:
    """Return a finite number of at least ``least``.

    Raises:
        ConfigError: it is none.
    """
    if not is_number(value) or value < least:
        raise ConfigError(f'{argument}={value!r} of {owner} must be a number of at least {least:g}')
    return float(value)


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
        raise ConfigError(f'{argument}={value!r} of {owner} is neither True nor False')
    return value


def check_text(value: Any, argument: str, owner: str) -> str | None:
    """Return a text, or None.

    Raises:
        ConfigError: it is neither.
    """
    if value is not None and not isinstance(value, str):
        raise ConfigError(f'{argument}={value!r} of {owner} must be a text, or None')
    return value


def check_path(value: Any, argument: str, owner: str) -> str:
    """Return the path of a file or folder.

    Raises:
        ConfigError: it is none.
    """
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        raise ConfigError(f'{argument}={value!r} of {owner} must be the path of a file')
    return str(os.fspath(value))


def check_share(value: Any, argument: str, owner: str) -> None:
    """Raise ConfigError unless a value is a share in 0..1.

    Args:
        value: as a config gives it.
        argument: its name, for the message.
        owner: whose argument it is.
    """
    if not is_number(value) or not 0 <= value <= 1:
        raise ConfigError(
            f'{argument}={value!r} of {owner} is not a share; expected a number in 0..1'
        )
