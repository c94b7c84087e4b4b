"""Patterns: the values that a config gives for groups by path, glob or name."""

from __future__ import annotations

from collections.abc import Container, Mapping
from fnmatch import fnmatchcase
from typing import TypeVar

from easypruner.errors import ConfigError, nearest
from easypruner.graph.coupling.groups import ChannelGroup

_Value = TypeVar('_Value')


def first_fitting(
    values: Mapping[str, _Value],
    groups: Mapping[str, ChannelGroup],
    what: str,
    excused: Container[str] = (),
) -> dict[str, _Value]:
    """Return group -> the value of the first pattern that fits it, for groups that a pattern fits.

    A pattern is the name of a group, the path of a module that makes its channels or contains such
    a module, or a glob of one of these. ``'*'`` fits all groups, even if there are none.

    Args:
        values: pattern -> value.
        groups: the groups of a graph.
        what: the name of the setting that has the patterns, such as ``'limits'``.
        excused: the patterns that may fit no group. A pattern that matched before a cut may match
            nothing later, because a group cut to one channel is no longer prunable.

    Raises:
        ConfigError: another pattern fits no group.
    """
    found: dict[str, _Value] = {}
    for pattern, value in values.items():
        names = [name for name, group in groups.items() if _concerns(pattern, group)]
        if not names and pattern != '*' and pattern not in excused:
            raise ConfigError(
                f'{what} name {pattern!r}, which fits no group; {nearest(pattern, groups)}'
            )
        for name in names:
            found.setdefault(name, value)
    return found


def _concerns(pattern: str, group: ChannelGroup) -> bool:
    paths = [group.name, *(member.module for member in group.producers)]
    return any(fnmatchcase(path, pattern) or path.startswith(pattern + '.') for path in paths)
