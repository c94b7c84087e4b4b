"""Budget: a limit on multiply-adds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from easypruner import Masks, Scores, hookimpl
from easypruner.base.checks import check_share
from easypruner.errors import ConfigError
from easypruner.graph import ChannelGraph
from easypruner.plugins.targets import runtime_for, runtime_of
from easypruner.runtimes import Runtime
from easypruner.strategies.budgets.costs import CostBudget
from easypruner.strategies.budgets.latency import bench_of
from easypruner.strategies.budgets.speed import faster


class Macs(CostBudget):
    """Removes the units with the lowest scores until the network's MACs are within a limit.

    The MACs are counted exactly, by the channel graph. Units that still fit afterwards are
    restored, the best first. Each group keeps its best unit, and the units that its limits require.

    In a runtime, a multiply-add of one layer takes several times as long as one of another layer.
    With ``for_speed``, channels of slow layers go first, as far as the masks keep most of the
    scores that they would keep otherwise. The MACs stay the same, and the network is faster.

    Use when:
        The compute of a network has to shrink by a given share; most papers compare at such a
        share.

    Fails when:
        Speed is the goal: MACs do not predict the time of layers that are bound by memory. Then
        use ``Latency``. The scores of different groups are not comparable: then one group may lose
        nearly all its units; use a source with a normalization, or limits.

    Values:
        ``keep`` from 0.3 to 0.7 in one cut. For less, remove the channels in several cuts, as
        ``Iterative`` does. ``graph=dict(limits=dict(round_to=8))`` of a config keeps widths that
        are fast on GPUs. ``for_speed`` from 0.02 to 0.1, with a runtime as ``target``.

    Args:
        keep: the limit as a share of the network's MACs, from 0 to 1. Give either ``keep`` or
            ``limit``.
        limit: the limit in MACs, for the example inputs that the graph was traced on.
        for_speed: the largest share of the kept scores that may be given up for a faster network,
            from 0 to 1. The times of layers are measured once and kept in the user's cache.
        runtime: the runtime for ``for_speed``: a name, a dict with its arguments, or an object. The
            default is the target of the graph, or ``TorchEager`` if it has none.
    """

    unit = 'MACs'

    def __init__(
        self,
        keep: float | None = None,
        limit: float | None = None,
        for_speed: float = 0.0,
        runtime: str | Mapping[str, Any] | Runtime | None = None,
    ) -> None:
        super().__init__(keep, limit)
        self.for_speed = check_share(for_speed, 'for_speed', 'Macs')
        if runtime is not None and not for_speed:
            raise ConfigError(
                f'runtime={runtime!r} and for_speed={for_speed} of Macs; expected for_speed above '
                '0, such as 0.05: only then the runtime matters; or leave the runtime out'
            )
        self.runtime = None if runtime is None else runtime_of(runtime, 'runtime of Macs')

    def check(self) -> None:
        if self.runtime is not None:
            self.runtime.check()

    def cost(self, graph: ChannelGraph, masks: Mapping[str, Tensor] | None) -> float:
        return graph.cost(masks).macs

    def choose(
        self, scores: Scores, graph: ChannelGraph, within: Callable[[Scores], Masks]
    ) -> Masks:
        if not self.for_speed:
            return within(scores)
        forecast = bench_of(graph, self.runtime or runtime_for(graph)).forecast
        return faster(scores, graph, within, forecast, self.for_speed)


easypruner_components = hookimpl(lambda: [Macs])
