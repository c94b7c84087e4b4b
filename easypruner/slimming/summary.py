"""The summary of slim(): costs before and after, limits, and the channels that were kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from easypruner.analysis.summary import FrozenRow, aggregate
from easypruner.graph import ChannelGraph, Cost, Masks, Verification
from easypruner.report.result import BudgetResult
from easypruner.report.text import describe_budget, format_change, format_count, format_share
from easypruner.slimming.target_times import TargetSummary
from easypruner.strategies import MaskSource
from easypruner.strategies.budgets.budget import budget_result
from easypruner.strategies.budgets.ranking import NO_LIMITS

_SHOWN = 3


@dataclass(frozen=True)
class SlimSummary:
    """The summary of a cut. ``print()`` shows it as plain text.

    Attributes:
        model: the class name of the network.
        source: the class name of the mask source.
        before: the cost of the network before the cut.
        after: the cost after the cut.
        units: the number of units in all groups, before and after the cut.
        budget: the limits and what was delivered; None if the source has no budget.
        groups: the number of groups.
        whole: group that lost nothing -> the cause, ``'limits'`` or ``'scores'``.
        frozen: the weights that make frozen channels, with the reason, most channels first.
        notes: what of the options for the graph could not be done, and why.
        verification: the verification of the cut; None if it was not requested.
        level: the score of all units if all have the same score, so that the choice is arbitrary;
            None if scores differ or the source has no scores.
        accuracy: the accuracies before and after the cut in percent; None if not known.
        target: what the target means for the cut; None if there is none.
    """

    model: str
    source: str
    before: Cost
    after: Cost
    units: tuple[int, int]
    budget: BudgetResult | None
    groups: int
    whole: Mapping[str, str]
    frozen: tuple[FrozenRow, ...]
    verification: Verification | None
    level: float | None = None
    accuracy: tuple[float, float] | None = None
    target: TargetSummary | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        graph: ChannelGraph,
        masks: Masks,
        source: MaskSource,
        verification: Verification | None,
        level: float | None = None,
    ) -> SlimSummary:
        """Summarize a cut before it is made.

        Args:
            graph: the channel graph of the full network.
            masks: the masks, True = keep.
            source: the mask source that selected them.
            verification: the verification of the cut; None if it was not requested.
            level: the score of all units if all have the same score, else None.
        """
        units = sum(group.size for group in graph.groups.values())
        budget = source.budget
        return cls(
            model=type(graph.model).__name__,
            source=type(source).__name__,
            before=graph.cost(),
            after=graph.cost(masks),
            units=(units, units - masks.removed_units),
            budget=None if budget is None else budget_result(budget, masks, graph),
            groups=len(graph.groups),
            whole=_whole(graph, masks),
            frozen=_frozen(graph),
            verification=verification,
            level=level if masks.removed_units else None,
            notes=graph.notes,
        )

    def with_accuracy(self, before: float, after: float) -> SlimSummary:
        """Return the summary with accuracies in percent."""
        return replace(self, accuracy=(before, after))

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as values that JSON supports."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        title = f'{self.model}, pruned by {self.source}'
        return '\n'.join([title, *_aligned(list(self._rows())), *self._lines()])

    def _rows(self) -> Iterator[tuple[str, str, str, str]]:
        yield '', 'before', 'after', 'left'
        pairs = {
            'MACs': (self.before.macs, self.after.macs),
            'params': (self.before.params, self.after.params),
            'channels': self.units,
        }
        for name, (before, after) in pairs.items():
            yield name, format_count(before), format_count(after), format_share(after, before)
        if self.accuracy is not None:
            full, pruned = self.accuracy
            yield 'accuracy', f'{full:.2f} %', f'{pruned:.2f} %', format_change(pruned - full)

    def _lines(self) -> Iterator[str]:
        if self.budget is not None:
            yield from map(describe_budget, self.budget.each)
        if self.level is not None:
            yield (
                f'the choice is arbitrary: every channel has the same score, {self.level:.4g}; '
                'train the network, or use another source'
            )
        if self.target is not None:
            yield from self.target.lines()
        if self.verification is not None:
            yield _verified(self.verification)
        if self.whole:
            names = [f'{name} ({why})' for name, why in self.whole.items()]
            yield f'{len(self.whole)} of {self.groups} groups lost nothing: {_first(names)}'
        if self.frozen:
            yield f'frozen channels: {_reasons(self.frozen)}'
        if self.notes:
            yield _first(list(self.notes), between='; ')


def frozen_reasons(graph: ChannelGraph) -> str:
    """Return the first reasons why channels of a network are frozen; '' if none are frozen."""
    return _reasons(_frozen(graph) or aggregate(graph.frozen))


def _frozen(graph: ChannelGraph) -> tuple[FrozenRow, ...]:
    """Return what freezes the outputs of weights."""
    return aggregate(e for e in graph.frozen if e.dim == 0 and graph.parameter(e.param).dim() > 1)


def _reasons(rows: tuple[FrozenRow, ...]) -> str:
    texts = [f'{row.channels} at {row.example or "the model itself"}, {row.reason}' for row in rows]
    return _first(texts, '; ')


def _whole(graph: ChannelGraph, masks: Mapping[str, Tensor]) -> dict[str, str]:
    whole = {}
    for name, group in graph.groups.items():
        if name not in masks or bool(masks[name].all()):
            least = int(graph.limits.get(name, NO_LIMITS).nearest_widths(group.size)[0])
            whole[name] = 'limits' if least == group.size else 'scores'
    return whole


def _verified(verification: Verification) -> str:
    mixed = _first(list(verification.unchecked))
    if verification.failed or verification.passed:
        verdict = 'NOT verified' if verification.failed else 'verified'
        text = f'{verdict}: the largest error of an output is {verification.error:.0e}'
    else:
        text = (
            'not checked: the outputs are constant, even without all channels of the cut layers; '
            'check for weights or inputs that are zero'
        )
    if verification.unchecked and not verification.removed_units:
        return f'not checked, because their channels are mixed: {mixed}'
    return f'{text}; not checked, because their channels are mixed: {mixed}' if mixed else text


def _first(items: list[str], between: str = ', ') -> str:
    more = [f'and {len(items) - _SHOWN} more'] if len(items) > _SHOWN else []
    return between.join([*items[:_SHOWN], *more])


def _aligned(rows: list[tuple[str, str, str, str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *cells in rows:
        padded = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        yield '  '.join([name.ljust(widths[0]), *padded])
