"""Budget: a limit on the measured time of a forward pass."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from torch import Tensor

from easypruner import Context, Masks, Scores, hookimpl
from easypruner.base.checks import check_count, check_name, check_path
from easypruner.errors import ConfigError
from easypruner.graph import ChannelGraph
from easypruner.plugins.targets import runtime_for, runtime_of
from easypruner.runtimes import Runtime
from easypruner.runtimes.layers import device_of
from easypruner.runtimes.machine import describe_runtime
from easypruner.runtimes.timing import Clock, Reading
from easypruner.strategies.budgets.cost_scores import RANKS, ranked_scores
from easypruner.strategies.budgets.costs import CostBudget
from easypruner.strategies.budgets.latency import Bench, bench_of, tabulate
from easypruner.strategies.budgets.latency_search import Unit, search
from easypruner.strategies.budgets.latency_table import LatencyTable
from easypruner.strategies.budgets.ranking import Ranking

_FEWEST_REPEATS = 5
_QUIET = 0.015
"""The noise, as a share of the limit, from which a measurement is repeated with more passes."""
_GLANCE = (0.5, 2.0)
"""The smallest and largest factor of the passes for a first look at a network in the search."""
_GLANCE_SECONDS = 0.7
"""The seconds of the whole network's passes in such a look, where the factor allows them."""
_MOST_TIMES = 8
_SECONDS = 5.0
"""The most seconds that such a repetition should take."""


class Latency(CostBudget):
    """Removes the units with the lowest scores until the time of a pass is within a limit.

    The time is that in a runtime, on this machine, with the example inputs. A forecast adds up the
    times of the network's layers, each measured alone at some widths. These times are kept in the
    user's cache, for all networks that have the same layers. Then networks are pruned as the
    forecast says, loaded into the runtime, and measured: their passes alternate with those of the
    unpruned network. Up to eight such measurements correct the forecast, until the measured share
    is at most the limit and at least 98 % of it, or no nearer width is allowed. If the time has a
    step across the limit, the groups at the step keep the fewer units, and others more.

    With a table of :func:`easypruner.strategies.budgets.latency.measure_table`, nothing is
    measured: the savings of the groups are added up. This is fast and gives the same result each
    time.

    Use when:
        The pruned network has to be fast in a known runtime on a known machine: MACs do not
        predict its time.

    Fails when:
        The network is so small, or the machine so busy, that the time varies by more than the
        limit requires; the error says so. Another machine has other times, and so has another
        batch size than that of the example inputs. Widths that are slow in the runtime make the
        search remove more than needed: choose the widths by ``target``.

    Values:
        The same runtime as ``target`` of the graph, which is then the default. ``keep`` from 0.4
        to 0.8 in one cut. ``rank='per_latency'`` where scores are comparable over layers, such as
        those of ``Taylor``. A ``table`` for searches and for several cuts. ``clock='cpu'`` on a
        machine with other load.

    Args:
        keep: the limit as a share of the time of the current network, from 0 to 1. Give either
            ``keep`` or ``limit``.
        limit: the limit in seconds.
        table: the path of a table; ``runtime``, ``repeats``, ``warmup`` and ``clock`` are not used
            then.
        repeats: the number of measured passes of each network. Noisy measurements are repeated
            with more.
        warmup: the number of passes of each network before these.
        runtime: the runtime: a name, a dict with its arguments, or an object. The default is the
            target of the graph, or ``TorchEager`` if it has none.
        rank: in which order units are removed: ``'score'`` takes the scores as they are,
            ``'per_latency'`` divides them by the time that a unit of the group saves,
            ``'per_macs'`` by its MACs.
        clock: ``'wall'``, the time that passes, or ``'cpu'``, the time of this process on all its
            threads, which other processes do not lengthen.
    """

    unit = 'seconds'

    def __init__(
        self,
        keep: float | None = None,
        limit: float | None = None,
        table: str | os.PathLike[str] | None = None,
        repeats: int = 20,
        warmup: int = 3,
        runtime: str | Mapping[str, Any] | Runtime | None = None,
        rank: Literal['score', 'per_latency', 'per_macs'] = 'score',
        clock: Clock = 'wall',
    ) -> None:
        super().__init__(keep, limit)
        self.path = None if table is None else check_path(table, 'table', 'Latency')
        self.repeats = check_count(repeats, 'repeats', 'Latency', _FEWEST_REPEATS)
        self.warmup = check_count(warmup, 'warmup', 'Latency', least=0)
        self.runtime = None if runtime is None else runtime_of(runtime, 'runtime of Latency')
        self.rank = check_name(rank, 'rank', 'Latency', RANKS)
        check_name(clock, 'clock', 'Latency', get_args(Clock))
        self.clock: Clock = clock
        if table is not None and rank != 'score':
            raise ConfigError(
                f'rank={rank!r} and table={self.path!r} of Latency; expected one of them: a table '
                'has the savings of groups, not the time of layers; leave the table out, or use '
                "rank='score'"
            )
        self._spread: float | None = None
        self._where = ''

    @cached_property
    def table(self) -> LatencyTable | None:
        """The table. It is read when it is first used."""
        return None if self.path is None else LatencyTable.load(self.path)

    def check(self) -> None:
        if self.table is None and self.runtime is not None:
            self.runtime.check()

    @property
    def kind(self) -> str:
        return 'Latency by table' if self.exact else 'Latency'

    @property
    def exact(self) -> bool:
        return self.path is not None

    def cost(self, graph: ChannelGraph, masks: Mapping[str, Tensor] | None) -> float:
        if self.table is not None:
            return self.table.predict(graph, masks)
        return self._bench(graph).stopwatch.compare(masks).pruned.median

    def __call__(self, scores: Scores, graph: ChannelGraph, context: Context) -> Masks:
        if self.exact:
            return super().__call__(scores, graph, context)
        limit, unit = self._share(graph)
        if limit >= 1:
            return Ranking.of(scores, graph.limits).removing(0)
        forecast = self._bench(graph).forecast
        whole = forecast.seconds()
        ranking = Ranking.of(ranked_scores(scores, graph, self.rank, forecast), graph.limits)
        return search(
            ranking,
            lambda masks: forecast.seconds(masks) / whole,
            lambda masks, sure: self._measure(graph, masks, limit, sure)[1],
            limit,
            unit,
            self._bench(graph).shares,
        ).masks

    def _share(self, graph: ChannelGraph) -> tuple[float, Unit]:
        """Return the limit as a share of the time of the current network, and its unit."""
        if self.keep is not None:
            return self.portion.share_at_hand(self.keep), Unit()
        seconds = self._bench(graph).stopwatch.compare().whole.median
        return self._limit_in_seconds(seconds) / seconds, Unit(seconds, 'seconds')

    def _limit_in_seconds(self, seconds: float) -> float:
        assert self.limit is not None
        return seconds + (self.limit - seconds) * self.portion.part

    def _measure(
        self, graph: ChannelGraph, masks: Mapping[str, Tensor], limit: float, sure: bool = True
    ) -> tuple[Reading, Reading]:
        """Return the seconds of a pruned network, and their ratio to those of the whole one.

        Args:
            graph: the channel graph of the network.
            masks: the masks.
            limit: the largest ratio, to which the noise is compared.
            sure: whether to use all passes, and more if the noise is high.
        """
        bench = self._bench(graph)
        stopwatch = bench.stopwatch
        if not sure:
            times = _GLANCE_SECONDS / (bench.forecast.whole * self.repeats)
            glance = stopwatch.compare(masks, times=min(max(times, _GLANCE[0]), _GLANCE[1]))
            return glance.pruned, glance.ratio
        found = stopwatch.compare(masks)
        wanted = (found.ratio.noise / (_QUIET * limit)) ** 2 if limit else 0.0
        if wanted > 1:
            round_of_both = found.whole.median + found.pruned.median
            fits = max(int(_SECONDS / (self.repeats * round_of_both)), 1)
            found = stopwatch.compare(masks, times=min(math.ceil(wanted), fits, _MOST_TIMES))
        return found.pruned, found.ratio

    def _runtime(self, graph: ChannelGraph) -> Runtime:
        return self.runtime or runtime_for(graph)

    def _bench(self, graph: ChannelGraph) -> Bench:
        return bench_of(graph, self._runtime(graph), self.repeats, self.warmup, self.clock)

    def delivered(self, masks: Masks, graph: ChannelGraph) -> float:
        """Measure again, or return the value of the table."""
        if self.exact:
            return super().delivered(masks, graph)
        share = 1.0 if self.keep is None else self.keep
        reading = self._measure(graph, masks, share)[0 if self.keep is None else 1]
        self._spread = reading.noise
        self._where = describe_runtime(self._runtime(graph), device_of(graph))
        return reading.median

    @property
    def spread(self) -> float | None:
        return self._spread

    @property
    def where(self) -> str:
        return self._where

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
