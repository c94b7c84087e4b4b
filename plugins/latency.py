"""Budget: the time of a forward pass, measured."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from easypruner import Component, Context, Masks, hookimpl
from easypruner.base.checks import check_count, check_path
from easypruner.errors import BudgetError
from easypruner.graph import ChannelGraph
from easypruner.strategies.budgets.costs import CostBudget
from easypruner.strategies.budgets.latency import Reading, Stopwatch
from easypruner.strategies.budgets.latency_table import LatencyTable, Savings, Together, added_up
from easypruner.strategies.budgets.ranking import Ranking
from easypruner.strategies.scores import Scores

_GRID = 64
_FEWEST_REPEATS = 5


class Latency(CostBudget):
    """Removes the lowest-scored units until a forward pass is as fast as asked for.

    Copies are really pruned and measured on the machine in hand, on the example inputs and the
    device of the model, each taking turns with the unpruned network. About eight are tried: how
    many units go is found to a sixty-fourth of all. A limit counts as met where it is so by more
    than the noise: twice the standard error of the median.

    With a table, measured before by
    :func:`easypruner.strategies.budgets.latency.measure_table`, nothing is measured: what the
    groups save is added up, which is fast and always comes out the same.

    Args:
        keep: the limit as a share of the time that the network at hand takes, in 0..1; or
        limit: the limit in seconds.
        table: path of a table.
        repeats: passes that count, of each network that is measured.
        warmup: passes before these.
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
        """The table, read when it is first needed."""
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
        # Nothing need be measured to tell that the whole network is not slower than itself.
        if self.keep is not None and self._share_or_seconds(graph) >= 1:
            return ranking.removing(0)
        return self._search(ranking, graph)

    def _search(self, ranking: Ranking, graph: ChannelGraph) -> Masks:
        """Bisect over the number of units that go."""
        watch = self._stopwatch(graph)
        limit = self._share_or_seconds(graph)

        def read(count: int) -> Reading:
            return self._reading(watch, ranking.removing(count))

        whole = read(0)
        if whole.median <= limit and self.keep is None:
            return ranking.removing(0)
        low, high = 0, len(ranking.order)
        self._check_reach(limit, whole, read(high))
        while high - low > max(1, len(ranking.order) // _GRID):
            middle = (low + high) // 2
            reading = read(middle)
            if reading.median + reading.noise <= limit:
                high = middle
            else:
                low = middle
        return ranking.removing(high)

    def _check_reach(self, limit: float, whole: Reading, least: Reading) -> None:
        """Raise unless the limit lies between what can be had and what there is, noise aside."""
        unit = 'seconds' if self.keep is None else 'of the time'
        measured = f'(median ± median absolute deviation of {self.repeats} passes)'
        if least.median > limit:
            raise BudgetError(
                f'at most {limit:.4g} {unit} were asked for, but {least} is the least that can be '
                f'had {measured}: each group keeps its best unit, or what its limits say; '
                'raise the limit'
            )
        noise = max(whole.noise, least.noise)
        if limit > whole.median - noise or limit < least.median + noise:
            raise BudgetError(
                f'{limit:.4g} {unit} were asked for, which cannot be told from what there is: '
                f'{whole} unpruned, {least} at the least {measured}, and these medians are off '
                f'by up to {noise:.2g}; ask for more distance, raise repeats, or quieten the '
                'machine'
            )

    def _share_or_seconds(self, graph: ChannelGraph) -> float:
        """Return the limit in the unit of :meth:`_reading`."""
        return self.limit_for(graph) if self.keep is None else self.step.share_at_hand(self.keep)

    def _reading(self, watch: Stopwatch, masks: Masks) -> Reading:
        """Measure what the limit is on: the ratio to the unpruned network, or seconds."""
        found = watch.compare(masks)
        return found.pruned if self.keep is None else found.ratio

    def _stopwatch(self, graph: ChannelGraph) -> Stopwatch:
        return Stopwatch(graph, self.repeats, self.warmup)

    def delivered(self, masks: Masks, graph: ChannelGraph) -> float:
        """Measure again; or return what the table says."""
        if self.exact:
            return super().delivered(masks, graph)
        reading = self._reading(self._stopwatch(graph), masks)
        self._spread = reading.spread
        return reading.median

    @property
    def spread(self) -> float | None:
        return self._spread

    def reference(self, graph: ChannelGraph) -> Any:
        """Return the table's seconds; measured ones of another time would not compare."""
        return super().reference(graph) if self.exact else None

    @classmethod
    def example(cls, graph: ChannelGraph, folder: Path) -> Mapping[str, Any]:
        # Of a machine that does one multiply-add in a nanosecond.
        groups = {}
        for name, cost in graph.group_costs().items():
            units = graph.groups[name].size
            kept = (1,) if units > 1 else ()
            saved = tuple(1e-9 * cost.macs * (1 - k / units) for k in kept)
            groups[name] = Savings(units, kept, saved, (0.0,) * len(kept))
        least = {name: torch.arange(group.size) < 1 for name, group in graph.groups.items()}
        whole, left = graph.cost().macs, graph.cost(least).macs
        added = added_up(groups, dict.fromkeys(groups, 1))
        together = Together((added,), (1e-9 * (whole - left),), (0.0,))
        path = folder / 'latency.json'
        LatencyTable(1e-9 * whole, 0.0, 1, {}, groups, together).save(path)
        return {'keep': 0.6, 'table': str(path)}


@hookimpl
def easypruner_components() -> Iterable[type[Component]]:
    return [Latency]
