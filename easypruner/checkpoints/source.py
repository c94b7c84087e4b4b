"""A checkpoint as a config or a caller states it: its path, and how its weights are called."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from easypruner.base.checks import check_path, check_text, refuse
from easypruner.base.describe import shown
from easypruner.checkpoints.reading import Weights, read_checkpoint
from easypruner.checkpoints.rename import NO_RENAME, Rename, rename_of
from easypruner.checkpoints.wrappers import plain_name
from easypruner.errors import ConfigError, EasyPrunerError, nearest


@dataclass(frozen=True)
class Source:
    """A checkpoint, and how its weights are called and chosen.

    Attributes:
        checkpoint: the path of a file or folder, or a URL.
        rename: the rule that turns its names into those of the model.
        skip: regular expressions of names of the model; these weights keep their initial values,
            and the checkpoint need not have them. They are also left out of the checkpoint.
        key: the entry of the checkpoint that has the weights; None for the usual one.
        prefix: take only the weights whose names start with this, and remove it.
    """

    checkpoint: str
    rename: Rename = NO_RENAME
    skip: tuple[str, ...] = ()
    key: str | None = None
    prefix: str | None = None

    def read(self) -> Weights:
        """Read the weights.

        Raises:
            EasyPrunerError: the file cannot be read, or does not have them.
        """
        weights = read_checkpoint(self.checkpoint, self.key)
        if not self.prefix:
            return weights
        start = f'{self.prefix.rstrip(".")}.'
        part = _under(start, weights.tensors)
        if not part:
            part = _under(start, {plain_name(n): t for n, t in weights.tensors.items()})
        if not part:
            first = {name.partition('.')[0] for name in weights.tensors}
            raise EasyPrunerError(
                f'the checkpoint {self.checkpoint!r} has no weights with prefix={self.prefix!r}; '
                f'{nearest(self.prefix.rstrip("."), first)}'
            )
        return replace(weights, tensors=part)


def _under(start: str, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Return the weights whose names start with a text, without it."""
    return {name[len(start) :]: t for name, t in tensors.items() if name.startswith(start)}


def source_of(value: Any, owner: str, argument: str = 'checkpoint') -> Source:
    """Return the source that a config or a caller states: a path, or a dict of a source's fields.

    Raises:
        ConfigError: the value is neither.
    """
    if isinstance(value, Source):
        return value
    if not isinstance(value, Mapping):
        return Source(check_path(value, argument, owner))
    known = [entry.name for entry in fields(Source)]
    for name in value:
        if name not in known:
            raise ConfigError(
                f'{argument} of {owner} does not take {shown(name)}; {nearest(str(name), known)}'
            )
    if value.get('checkpoint') is None:
        raise ConfigError(f'{argument} of {owner} is a dict without checkpoint=PATH')
    return Source(
        check_path(value['checkpoint'], 'checkpoint', f'{argument} of {owner}'),
        rename_of(value.get('rename'), owner),
        _patterns(value.get('skip'), owner),
        check_text(value.get('key'), 'key', owner),
        check_text(value.get('prefix'), 'prefix', owner),
    )


def _patterns(value: Any, owner: str) -> tuple[str, ...]:
    patterns = [value] if isinstance(value, str) else () if value is None else value
    if not isinstance(patterns, list | tuple):
        refuse(value, 'skip', owner, r"a list of regular expressions, such as ['head\.fc\..*']")
    return tuple(_pattern(pattern, owner) for pattern in patterns)


def _pattern(value: Any, owner: str) -> str:
    try:
        re.compile(value)
    except (re.error, TypeError) as error:
        raise ConfigError(
            f'skip={shown(value)} of {owner} is not a regular expression: {error}; expected '
            r"one for the names of weights, such as 'head\.fc\..*'"
        ) from None
    return str(value)
