"""The search for masks whose measured time is just below a limit, led by a forecast."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from easypruner.errors import BudgetError
from easypruner.graph import ChannelGraph, Masks
from easypruner.runtimes.forecast import Forecast
from easypruner.runtimes.timing import Reading
from easypruner.strategies.budgets.ranking import Ranking
from easypruner.strategies.scores import Scores

RANKS = ('score', 'per_macs', 'per_latency')
_MOST = 5
"""The number of networks that are measured, unless none of them is near the limit."""
_LAST = 8
"""The most networks that are measured."""
_AIM = 0.9925
"""The share of the limit that is aimed at, so that noise does not lead above it."""
_ENOUGH = 0.98
"""The share of the limit from which a network is near enough to it."""
_NEAR = 0.97
"""The share of the limit from which no more than the usual number of networks are measured."""
_SLOW = 0.5
"""The share of the distance to the limit that is left after a step that helped little."""
_LEAST_RATE = 0.01
"""The least cost of a unit that scores are divided by, as a share of the mean."""

Shares = tuple[float, float]
"""A predicted and a measured share."""


@dataclass(frozen=True)
class Candidate:
    """Masks with their time, as shares of that of the whole network.

    Attributes:
        masks: the masks.
        predicted: the share by the forecast.
        measured: the share as measured.
    """

    masks: Masks
    predicted: float
    measured: Reading


@dataclass(frozen=True)
class Unit:
    """The unit of a limit on the time, for messages.

    Attributes:
        scale: the time of the whole network in this unit.
        name: its name.
    """

    scale: float = 1.0
    name: str = 'of the time'

    def show(self, share: float) -> str:
        """Format a share of the time of the whole network in this unit."""
        return f'{share * self.scale:.4g} {self.name}'

    def reading(self, share: Reading) -> str:
        """Format a measured share in this unit."""
        return (
            f'{share.median * self.scale:.4g} ± {share.spread * self.scale:.2g} (median ± median '
            f'absolute deviation of {share.count} passes)'
        )


def search(
    ranking: Ranking,
    predict: Callable[[Masks], float],
    measure: Callable[[Masks, bool], Reading],
    limit: float,
    unit: Unit,
    known: list[Shares] | None = None,
) -> Candidate:
    """Return the masks with the largest measured share that is within a limit.

    The forecast says in which order of units the time is reached, and the measurements say what
    its shares mean: between two that are known, the measured share is taken to be on a line.

    Args:
        ranking: the ranking of the units.
        predict: the predicted share of the time under masks.
        measure: measures this share, with few passes, or with many if the second argument is True.
        limit: the largest share, below 1.
        unit: the unit of the limit in messages.
        known: the predicted and the measured shares of other masks; those of this search are added.

    Raises:
        BudgetError: the limit cannot be met, or is within the noise of the measurement.
    """
    known = [] if known is None else known
    line, least = _Line.through(known, _AIM * limit), predict(ranking.removing(len(ranking.order)))
    found: list[Candidate] = []
    while not _ends(found, limit):
        masks = ranking.within(predict, max(line.aim, least), 'of the predicted time')
        if any(same(masks, candidate.masks) for candidate in found):
            break
        found.append(Candidate(masks, predict(masks), _measured(measure, masks, limit)))
        predicted, share = found[-1].predicted, found[-1].measured.median
        known.append((predicted, share))
        if _ENOUGH * limit <= share <= limit or (share > limit and predicted <= least):
            break
        line = line.after(predicted, share)
    return _best(found, limit, unit, least)


def _ends(found: Sequence[Candidate], limit: float) -> bool:
    """Return whether enough networks were measured."""
    near = any(_NEAR * limit <= each.measured.median <= limit for each in found)
    return len(found) >= (_MOST if near else _LAST)


def _measured(measure: Callable[[Masks, bool], Reading], masks: Masks, limit: float) -> Reading:
    """Measure masks with few passes, and with many if the share may be near enough to the limit."""
    glance = measure(masks, False)
    near = _ENOUGH * limit - glance.noise <= glance.median <= limit + glance.noise
    return measure(masks, True) if near else glance


def _best(found: Sequence[Candidate], limit: float, unit: Unit, least: float) -> Candidate:
    met = [candidate for candidate in found if candidate.measured.median <= limit]
    if not met:
        best = min(found, key=lambda each: each.measured.median)
        raise _infeasible(unit, limit, best.measured, lowest=best.predicted <= least * 1.001)
    best = max(met, key=lambda each: each.measured.median)
    if best.measured.noise > 1 - limit:
        raise BudgetError(
            f'the limit is {unit.show(limit)}, which is too close to the whole network: '
            f'{unit.reading(best.measured)} is uncertain by {best.measured.noise * unit.scale:.2g};'
            ' use another limit, more repeats, or a quieter machine'
        )
    return best


@dataclass(frozen=True)
class _Line:
    """The measured share as a function of the predicted one, between two that are known.

    Attributes:
        low: a predicted and a measured share, which is not above the wanted one.
        high: the same, above it.
        wanted: the wanted measured share.
        slow: how much nearer than the last one an end was that was replaced; 1 is not at all.
    """

    low: Shares
    high: Shares
    wanted: float
    slow: float = 0.0

    @classmethod
    def through(cls, known: Iterable[Shares], wanted: float) -> _Line:
        """Return the line between the known shares that are next to the wanted one."""
        line = cls((0.0, 0.0), (1.0, 1.0), wanted)
        for predicted, share in known:
            if line.low[0] < predicted < line.high[0]:
                line = line.after(predicted, share)
        return replace(line, slow=0.0)

    @property
    def aim(self) -> float:
        """The predicted share at which the wanted one is expected."""
        (low, below), (high, above) = self.low, self.high
        position = (self.wanted - below) / (above - below) if above > below else 0.0
        aim = low + min(max(position, 0.0), 1.0) * (high - low)
        if self.slow <= _SLOW:
            return aim
        # The time is not on the line: it has a step between this share and the farther end.
        return aim + ((high if position < 0.5 else low) - aim) / 3

    def after(self, predicted: float, share: float) -> _Line:
        """Return the line after another measurement."""
        if share > self.wanted:
            old, low, high = self.high, self.low, (predicted, share)
        else:
            old, low, high = self.low, (predicted, share), self.high
        if high[0] <= low[0]:
            # Noise, or widths off the grid: a smaller network was slower. The other end goes.
            low, high = ((0.0, 0.0), high) if share > self.wanted else (low, (1.0, 1.0))
        first = old in ((0.0, 0.0), (1.0, 1.0))
        left = abs(old[1] - self.wanted)
        slow = 0.0 if first or not left else abs(share - self.wanted) / left
        return _Line(low, high, self.wanted, slow)


def same(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    """Return whether masks keep the same units."""
    return first.keys() == second.keys() and all(
        bool((mask == second[name]).all()) for name, mask in first.items()
    )


def _infeasible(unit: Unit, limit: float, best: Reading, lowest: bool) -> BudgetError:
    return BudgetError(
        f'the limit is {unit.show(limit)}, but {unit.reading(best)} '
        f'{"is the lowest possible" if lowest else "is the least that was found"}: each group '
        'keeps its best unit, or the units that its limits require, and frozen channels stay; '
        'raise the limit'
    )


def ranked_scores(scores: Scores, graph: ChannelGraph, rank: str, forecast: Forecast) -> Scores:
    """Return scores by which units are removed first that cost most for what they are worth.

    Args:
        scores: the scores, higher = keep.
        graph: the channel graph of the network.
        rank: a name of :data:`RANKS`: ``'per_latency'`` divides the scores of a group by the time
            that one of its units saves, ``'per_macs'`` by its MACs.
        forecast: the forecast of the network's time.
    """
    if rank == 'score':
        return scores
    saved = {name: saved_by(name, graph, forecast) for name in scores}
    rates = {name: each[rank == 'per_latency'] for name, each in saved.items()}
    mean = sum(rates.values()) / max(len(rates), 1) or 1.0
    return divided(scores, {name: max(rate / mean, _LEAST_RATE) for name, rate in rates.items()})


def divided(scores: Scores, rates: Mapping[str, float]) -> Scores:
    """Divide scores by a rate of their group: what a unit of it costs, above 0."""
    return Scores({name: _per(score, rates[name]) for name, score in scores.items()})


def _per(score: Tensor, rate: float) -> Tensor:
    """Divide scores by a rate. Those below zero are worth less, the cheaper they are to keep."""
    value = score.double()
    return value.where(value < 0, value / rate).where(value >= 0, value * rate)


def saved_by(name: str, graph: ChannelGraph, forecast: Forecast) -> tuple[float, float]:
    """Return the MACs and the seconds that a unit of a group saves, on average over half of it."""
    size = graph.groups[name].size
    kept = max(size // 2, 1)
    if kept == size:
        return 0.0, 0.0
    masks = {name: torch.arange(size) < kept}
    macs = graph.cost().macs - graph.cost(masks).macs
    seconds = forecast.seconds() - forecast.seconds(masks)
    return macs / (size - kept), seconds / (size - kept)
