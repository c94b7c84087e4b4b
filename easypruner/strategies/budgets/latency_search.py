"""The search for masks whose measured time is just below a limit, led by a forecast."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from easypruner.errors import BudgetError
from easypruner.graph import Masks
from easypruner.runtimes.timing import Reading
from easypruner.strategies.budgets.ranking import Ranking

_MOST = 5
"""The most networks of a ranking that are measured."""
_LAST = 8
"""The most networks that are measured, with those beside a step of the time."""
_MORE = 4
"""The most networks beyond these, where only the narrowest one is within the limit."""
_AIM = 0.9925
"""The share of the limit that is aimed at, so that noise does not lead above it."""
_ENOUGH = 0.98
"""The share of the limit from which a network is near enough to it."""
_UNIT = 'of the predicted time'
_SLOW = 0.5
"""The share of the distance to the limit that is left after a step that helped little."""

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
    least = predict(ranking.removing(len(ranking.order)))
    run = _Search(ranking, predict, measure, limit, least, [] if known is None else known)
    run.along(_MOST)
    if not run.is_near:
        run.beside_step(_LAST)
        run.along(_LAST)
    if not run.is_met:
        # A refusal says what is possible.
        run.narrowest()
        run.along(_LAST + _MORE)
    return _best(run.found, limit, unit, least)


class _Search:
    """A search, and what it has measured so far.

    Args:
        ranking: the ranking of the units.
        predict: the predicted share of the time under masks.
        measure: measures this share, with few passes, or with many if the second argument is True.
        limit: the largest share.
        least: the predicted share when all units are removed that may be.
        known: the predicted and the measured shares of masks of the ranking.
    """

    def __init__(
        self,
        ranking: Ranking,
        predict: Callable[[Masks], float],
        measure: Callable[[Masks, bool], Reading],
        limit: float,
        least: float,
        known: list[Shares],
    ) -> None:
        self.found: list[Candidate] = []
        self._ranking, self._predict, self._measure = ranking, predict, measure
        self._limit, self._least, self._known = limit, least, known
        self._line = _Line.through(known, _AIM * limit)
        self._ended = False

    @property
    def is_near(self) -> bool:
        """Whether a network is near enough to the limit, or no other can be."""
        return self._ended or any(
            _ENOUGH * self._limit <= each.measured.median <= self._limit for each in self.found
        )

    @property
    def is_met(self) -> bool:
        """Whether a network is within the limit."""
        return any(each.measured.median <= self._limit for each in self.found)

    def narrowest(self) -> None:
        """Measure the network that keeps the fewest units, which ends the search if it is slow."""
        masks = self._ranking.removing(len(self._ranking.order))
        if not self._has(masks):
            self._note(masks)

    def along(self, most: int) -> None:
        """Measure networks of the ranking, until there are as many as given."""
        while len(self.found) < most and not self._ended:
            masks = self._ranking.within(self._predict, max(self._line.aim, self._least), _UNIT)
            if self._has(masks):
                return
            self._note(masks)

    def _note(self, masks: Masks) -> None:
        """Measure a network of the ranking, and learn from it what predicted shares mean."""
        share = self._add(masks)
        predicted = self.found[-1].predicted
        self._known.append((predicted, share))
        self._line = self._line.after(predicted, share)
        if share > self._limit and predicted <= self._least:
            self._ended = True

    def beside_step(self, most: int) -> None:
        """Measure networks beside a step of the time, which the ranking passes.

        The groups in which the networks on both sides of the step differ keep the fewer units, and
        others more instead: all of these groups, or else a half of them, as one may be the cause.
        """
        met = [each for each in self.found if each.measured.median <= self._limit]
        above = [each for each in self.found if each.measured.median > self._limit]
        if not met or not above:
            return
        low = max(met, key=lambda each: each.measured.median)
        step = min(above, key=lambda each: each.predicted)
        names = [
            name
            for name, mask in low.masks.items()
            if int(mask.sum()) < int(step.masks[name].sum())
        ]
        half = len(names) // 2
        for held in (names, names[:half], names[half:]):
            if held:
                low = self._raise_others(low, held, most)

    def _raise_others(self, low: Candidate, names: Sequence[str], most: int) -> Candidate:
        """Measure networks that keep no more units of some groups; return the best within limits.

        Args:
            low: the best so far.
            names: the groups that keep as many units as it has.
            most: the most networks that are measured.
        """
        held = {name: int(low.masks[name].sum()) for name in names}

        def cost(masks: Masks) -> float:
            fits = all(int(masks[name].sum()) <= count for name, count in held.items())
            return self._predict(masks) if fits else math.inf

        part = 1.0
        while len(self.found) < most and not self.is_near:
            aim = low.predicted + part * (_AIM * self._limit - low.measured.median)
            masks = self._ranking.within(cost, aim, _UNIT)
            if self._has(masks):
                break
            if low.measured.median < self._add(masks) <= self._limit:
                low = self.found[-1]
            else:
                part /= 2
        return low

    def _has(self, masks: Masks) -> bool:
        return any(same(masks, candidate.masks) for candidate in self.found)

    def _add(self, masks: Masks) -> float:
        """Measure masks with few passes, and once more, with many, if they may be enough.

        Other load that lasts for a second shifts all of few passes alike: their noise is small.
        """
        reading, limit = self._measure(masks, False), self._limit
        if _ENOUGH * limit - reading.noise <= reading.median <= limit + reading.noise:
            reading = self._measure(masks, True)
        self.found.append(Candidate(masks, self._predict(masks), reading))
        self._ended = _ENOUGH * limit <= reading.median <= limit
        return reading.median


def _best(found: Sequence[Candidate], limit: float, unit: Unit, least: float) -> Candidate:
    met = [candidate for candidate in found if candidate.measured.median <= limit]
    if not met:
        best = min(found, key=lambda each: each.measured.median)
        # Noise may make a wider network seem faster than the narrowest.
        lowest = any(each.predicted <= least * 1.001 for each in found)
        raise _infeasible(unit, limit, best.measured, lowest)
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
