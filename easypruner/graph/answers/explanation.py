"""Explanations: what goes with one channel, and which operations tie it to that."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

_MOST_RANGES = 4


@dataclass(frozen=True)
class Tied:
    """Channels of one dimension of a parameter that go with a channel.

    Attributes:
        param: the dotted name of the parameter or buffer.
        dim: the dimension.
        indices: the indices of the channels.
        reads: whether the parameter reads the channels there. Else it makes or carries them.
        operations: the operations that tie them, in order from the channel that is explained to the
            one that uses the parameter.
    """

    param: str
    dim: int
    indices: tuple[int, ...]
    reads: bool
    operations: tuple[str, ...]

    @property
    def name(self) -> str:
        """The parameter with its indices: ``conv.weight[3]``, ``conv.weight[:, 3]``.

        >>> Tied('fc.weight', 1, (0, 1, 2, 7), True, ()).name
        'fc.weight[:, 0:3 7]'
        """
        return name_channels(self.param, self.dim, self.indices)


@dataclass(frozen=True)
class Explanation:
    """What goes with one channel, or why it stays. ``print()`` shows it as text.

    Attributes:
        param: the dotted name of the parameter or buffer.
        dim: the dimension.
        index: the index.
        kind: what the channel is part of, such as ``'heads'`` or ``'residual stream'``.
        group: the name of its group; None if it stays.
        unit: the number of its unit in the group; None if it stays.
        units: the number of units of the group.
        reason: why it stays; None if it can go.
        held_by: the operations that tie it to that, in order.
        tied: what goes with it, or would go if it did not stay.
    """

    param: str
    dim: int
    index: int
    kind: str
    group: str | None
    unit: int | None
    units: int
    reason: str | None
    held_by: tuple[str, ...]
    tied: tuple[Tied, ...]

    def __str__(self) -> str:
        name = name_channels(self.param, self.dim, [self.index])
        if self.reason is None:
            first = f'{name} is unit {self.unit} of {self.units} in group {self.group!r}'
            lines = [f'{first} ({self.kind}). These go together:']
        else:
            lines = [f'{name} ({self.kind}) stays: {self.reason}']
            lines += [f'  tied to that by {_chain(self.held_by)}'] * bool(self.held_by)
            lines += ['Otherwise these would go together:'] * bool(self.tied)
        width = max((len(each.name) for each in self.tied), default=0)
        for each in self.tied:
            verb = 'read by' if each.reads else '       '
            lines.append(f'  {each.name:{width}}  {verb}  {_chain(each.operations)}'.rstrip())
        return '\n'.join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return the explanation as plain values."""
        return asdict(self)


def name_channels(param: str, dim: int, indices: Sequence[int]) -> str:
    """Return a parameter with some indices of a dimension, as in Python."""
    return f'{param}[{":, " * dim}{" ".join(_ranges(indices))}]'


def _ranges(indices: Sequence[int]) -> Iterable[str]:
    """Yield ranges of consecutive indices; of many, the first ones."""
    runs = [
        [index for _, index in run]
        for _, run in groupby(enumerate(indices), lambda entry: entry[1] - entry[0])
    ]
    for run in runs[:_MOST_RANGES]:
        yield str(run[0]) if len(run) == 1 else f'{run[0]}:{run[-1] + 1}'
    if len(runs) > _MOST_RANGES:
        yield f'... {len(indices)} in all'


def _chain(operations: Iterable[str]) -> str:
    return ' > '.join(operations)
