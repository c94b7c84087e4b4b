"""Arguments: what several components check of theirs."""

from __future__ import annotations

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


def check_name(value: Any, argument: str, owner: str, known: Collection[str]) -> str:
    """Return a name that is one of ``known``.

    Raises:
        ConfigError: it is not; the message has the nearest.
    """
    if value not in known:
        raise ConfigError(
            f'{argument}={value!r} of {owner} is not known; {nearest(str(value), known)}'
        )
    return str(value)
