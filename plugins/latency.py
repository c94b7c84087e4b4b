"""Budget: a limit on the measured time of a forward pass."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from easypruner import Context, Masks, Scores, hookimpl
from easypruner.base.checks import check_count, check_path
from easypruner.errors import BudgetError
from easypruner.graph import ChannelGraph
from easypruner.runtimes.timing import Reading
from easypruner.strategies.budgets.costs import CostBudget
from easypruner.strategies.budgets.latency import Stopwatch, tabulate
from easypruner.strategies.budgets.latency_table import LatencyTable
from easypruner.strategies.budgets.ranking import Ranking

_GRID = 64
"""The search finds the number of removed units to this part of all units."""
_FEWEST_REPEATS = 5


class Latency(CostBudget):
    """Removes the units with the lowest scores until the time of a pass is within a limit.

    Copies are pruned and measured on this machine, with the example inputs and on the device of
    the model. Their passes alternate with passes of the unpruned network. About eight copies are
    measured, which finds the number of removed units to a 64th of all units. The limit is met if
    the median is below it by more than the noise, which is twice the standard error of the median.

    With a table of :func:`easypruner.strategies.budgets.latency.measure_table`, nothing is
    measured: the savings of the groups are added up. This is fast and gives the same result each
    time.

    Use when:
        The pruned network has to be fast on a known machine, and MACs do not predict its time.

    Fails when:
        The machine is busy, or the network is so small that the time varies by more than the limit
        requires; the error says so. Another machine has other times, and so has another batch size
        than that of the example inputs.

    Values:
        A ``table`` for searches and for several cuts, because it is measured once. 20 ``repeats``
        on a quiet machine; more for passes below a millisecond.

    Args:
        keep: the limit as a share of the time of the current network, from 0 to 1. Give either
            ``keep`` or ``limit``.
        limit: the limit in seconds.
        table: the path of a table.
        repeats: the number of measured passes of each network.
        warmup: the number of passes of each network before these.
    """

    unit = 'seconds'

    def __init__(
        self,
        keep: float | None = None,
        limit: float | None = None,
        table: str | os.PathLike[str] | None = None,
        repeats: int = 20,
        warmup: int = 3,
    ) -> None:
        super().__init__(keep, limit)
        self.path = None if table is None else check_path(table, 'table', 'Latency')
        self.repeats = check_count(repeats, 'repeats', 'Latency', _FEWEST_REPEATS)
        self.warmup = check_count(warmup, 'warmup', 'Latency', least=0)
        self._spread: float | None = None

    @cached_property
    def table(self) -> LatencyTable | None:
        """The table. It is read when it is first used."""
        return None if self.path is None else LatencyTable.load(self.path)

    def check(self) -> None:
        _ = self.table

    @property
    def kind(self) -> str:
        return 'Latency by table' if self.exact else 'Latency'

    @property
    def exact(self) -> bool:
        return self.path is not None

    def cost(self, graph: ChannelGraph, masks: Mapping[str, Tensor] | None) -> float:
        if self.table is not None:
            return self.table.predict(graph, masks)
        return self._stopwatch(graph).compare(masks).pruned.median

    def __call__(self, scores: Scores, graph: ChannelGraph, context: Context) -> Masks:
        if self.exact:
            return super().__call__(scores, graph, context)
        ranking = Ranking.of(scores, graph.limits)
        limit = self._share_or_seconds(graph)
        # No measurement is needed if the limit is the time of the whole network.
        if self.keep is not None and limit >= 1:
            return ranking.removing(0)
        stopwatch, most = self._stopwatch(graph), len(ranking.order)

        def read(count: int) -> Reading:
            return self._reading(stopwatch, ranking.removing(count))

        def fits(count: int) -> bool:
            reading = read(count)
            return reading.median + reading.noise <= limit

        whole = read(0)
        if whole.median <= limit and self.keep is None:
            return ranking.removing(0)
        self._check_attainable(limit, whole, read(most))
        step = max(1, most // _GRID)
        counts = range(step, most, step)
        found = bisect_left(counts, True, key=fits)
        return ranking.removing([*counts, most][found])

    def _check_attainable(self, limit: float, whole: Reading, least: Reading) -> None:
        """Raise BudgetError unless the limit is clearly between both readings.

        Args:
            limit: the limit.
            whole: the reading of the whole network.
            least: the reading of the smallest possible network.
        """
        unit = 'seconds' if self.keep is None else 'of the time'
        measured = f'(median ± median absolute deviation of {self.repeats} passes)'
        if least.median > limit:
            raise BudgetError(
                f'the limit is {limit:.4g} {unit}, but {least} is the lowest possible {measured}: '
                'each group keeps its best unit, or the units that its limits require; raise the '
                'limit'
            )
        noise = max(whole.noise, least.noise)
        if limit > whole.median - noise or limit < least.median + noise:
            raise BudgetError(
                f'the limit is {limit:.4g} {unit}, which is too close to the {whole} of the whole '
                f'network or the {least} of the smallest possible one {measured}: these medians '
                f'are uncertain by {noise:.2g}; use another limit, more repeats, or a quieter '
                'machine'
            )

    def _share_or_seconds(self, graph: ChannelGraph) -> float:
        """Return the limit in the unit of :meth:`_reading`."""
        return self.limit_for(graph) if self.keep is None else self.portion.share_at_hand(self.keep)

    def _reading(self, stopwatch: Stopwatch, masks: Masks) -> Reading:
        """Measure the ratio to the unpruned network, or the seconds, depending on the limit."""
        found = stopwatch.compare(masks)
        return found.pruned if self.keep is None else found.ratio

    def _stopwatch(self, graph: ChannelGraph) -> Stopwatch:
        return Stopwatch(graph, self.repeats, self.warmup)

    def delivered(self, masks: Masks, graph: ChannelGraph) -> float:
        """Measure again, or return the value of the table."""
        if self.exact:
            return super().delivered(masks, graph)
        reading = self._reading(self._stopwatch(graph), masks)
        self._spread = reading.spread
        return reading.median

    @property
    def spread(self) -> float | None:
        return self._spread

    def reference(self, graph: ChannelGraph) -> Any:
        """Return the table's seconds; measured seconds are not comparable later."""
        return super().reference(graph) if self.exact else None

    @classmethod
    def example(cls, graph: ChannelGraph, folder: Path) -> Mapping[str, Any]:
        def saved(masks: Mapping[str, Tensor]) -> tuple[float, float]:
            return 1e-9 * (macs - graph.cost(masks).macs), 0.0

        # The table of a machine that computes one multiply-add per nanosecond.
        macs = graph.cost().macs
        path = folder / 'latency.json'
        tabulate(graph, Reading(1e-9 * macs, 0.0, 1), saved, shares=()).save(path)
        return {'keep': 0.6, 'table': str(path)}


easypruner_components = hookimpl(lambda: [Latency])
