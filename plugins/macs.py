"""Budget: a limit on multiply-adds."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from easypruner import hookimpl
from easypruner.graph import ChannelGraph
from easypruner.strategies.budgets.costs import CostBudget


class Macs(CostBudget):
    """Removes the units with the lowest scores until the network's MACs are within a limit.

    The MACs are counted exactly, by the channel graph. Units that still fit afterwards are
    restored, the best first. Each group keeps its best unit, and the units that its limits require.

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
        are fast on GPUs.

    Args:
        keep: the limit as a share of the network's MACs, from 0 to 1. Give either ``keep`` or
            ``limit``.
        limit: the limit in MACs, for the example inputs that the graph was traced on.
    """

    unit = 'MACs'

    def cost(self, graph: ChannelGraph, masks: Mapping[str, Tensor] | None) -> float:
        return graph.cost(masks).macs


easypruner_components = hookimpl(lambda: [Macs])
