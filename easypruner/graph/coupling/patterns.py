"""Patterns: values that a config gives for some groups, by path, glob or name."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
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
    """Return group -> the value of the first pattern that fits it, where one does.

    A pattern is the name of a group, the path of a module that makes its channels or contains one
    that does, or a glob of either. ``'*'`` fits all groups, and may fit none.

    Args:
        values: pattern -> value.
        groups: of a graph.
        what: the setting that has the patterns, for the message, e.g. ``'limits'``.
        excused: patterns that may fit no group, because they fitted one before a cut: a group cut
            to one channel is no longer prunable.

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
    return any(
        fnmatchcase(path, pattern) or path.startswith(pattern + '.') for path in _paths(group)
    )


def _paths(group: ChannelGroup) -> Iterator[str]:
    yield group.name
    yield from (member.module for member in group.producers)
