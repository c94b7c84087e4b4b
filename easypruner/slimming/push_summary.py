"""PushSummary: how far a regularizer has brought down what it pushes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from easypruner.graph import ChannelGraph, Masks
from easypruner.strategies import Regularizer
from easypruner.strategies.measures.remains import Remains
from easypruner.strategies.regularizers.scale_penalty import ScalePenalty

ZERO = 0.01
"""The magnitude up to which a value counts as zero."""


@dataclass(frozen=True)
class Magnitudes:
    """Statistics of magnitudes.

    Attributes:
        number: how many there are.
        median: the median.
        largest: the largest.
        above: how many are above 0.01.
    """

    number: int
    median: float
    largest: float
    above: int

    @classmethod
    def of(cls, values: Tensor) -> Magnitudes:
        """Return the statistics of a row of at least one magnitude."""
        values = values.detach().flatten().double().cpu()
        above = int((values > ZERO).sum())
        return cls(len(values), float(values.median()), float(values.max()), above)


Rows = dict[str, Magnitudes]
"""What was measured -> its magnitudes."""


@torch.no_grad()
def measure_rows(regularizer: Regularizer, graph: ChannelGraph, masks: Masks | None) -> Rows:
    """Measure the scales and biases of norms, and what else a regularizer brings to zero."""
    removed = Remains.of(graph, masks or {})
    kept = Remains.of(graph, _complement(graph, masks))
    found = {
        'removed scales': removed.all_scales,
        'removed biases': removed.all_biases,
        'kept scales': kept.all_scales,
    }
    has_own = type(regularizer).magnitudes is not Regularizer.magnitudes
    # Those of norm scales would only repeat the rows above.
    if has_own and not isinstance(regularizer, ScalePenalty):
        largest = regularizer.magnitudes(graph, masks)
        found['largest of a group'] = torch.tensor(list(largest.values()))
    return {name: Magnitudes.of(values) for name, values in found.items() if len(values)}


def _complement(graph: ChannelGraph, masks: Masks | None) -> dict[str, Tensor]:
    """Return masks that remove what the given ones keep."""
    everything = {name: torch.zeros(g.size, dtype=torch.bool) for name, g in graph.groups.items()}
    return everything | {name: ~mask for name, mask in (masks or {}).items()}


@dataclass(frozen=True)
class PushSummary:
    """How far a regularizer has brought down what it pushes. ``print()`` shows it as plain text.

    Attributes:
        regularizer: the class name of the regularizer.
        form: ``'gradient'`` or ``'proximal'``.
        strength: the strength, without the factors of groups.
        done: the number of updates that are done.
        updates: the number of updates that were announced.
        before: what was measured -> its magnitudes before the first update.
        now: the same, now or before the masks were cut.
    """

    regularizer: str
    form: str
    strength: float
    done: int
    updates: int
    before: Mapping[str, Magnitudes]
    now: Mapping[str, Magnitudes]

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as values that JSON supports."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        title = (
            f'{self.regularizer} ({self.form}, strength {self.strength:.3g}), '
            f'{self.done} of {self.updates} updates'
        )
        head = ('', 'number', 'median', 'largest', f'above {ZERO}')
        table = [head, *(self._row(name) for name in self.now)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        return '\n'.join([title, *(_line(row, widths) for row in table)])

    def _row(self, name: str) -> tuple[str, ...]:
        before, now = self.before[name], self.now[name]
        return (
            name,
            str(now.number),
            f'{before.median:.2g} -> {now.median:.2g}',
            f'{before.largest:.2g} -> {now.largest:.2g}',
            f'{before.above} -> {now.above}',
        )


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    first, *others = row
    cells = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
    return ' ' + '  '.join([first.ljust(widths[0]), *cells]).rstrip()
