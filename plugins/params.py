"""Budget: a limit on parameters."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from easypruner import hookimpl
from easypruner.graph import ChannelGraph
from easypruner.strategies.budgets.costs import CostBudget


class Params(CostBudget):
    """Removes the units with the lowest scores until the network's parameters are within a limit.

    Tied parameters count once. Buffers do not count. Each group keeps its best unit, and the units
    that its limits require.

    Use when:
        The size of the file or the memory for weights has to shrink. A list of ``Params`` and
        ``Macs`` meets both limits.

    Fails when:
        Time is the goal: layers with large maps have few parameters and most of the MACs.

    Values:
        ``keep`` from 0.3 to 0.7 in one cut. The parameters of frozen channels stay, so the lowest
        possible limit may be high in a network with a wide classifier.

    Args:
        keep: the limit as a share of the network's parameters, from 0 to 1. Give either ``keep`` or
            ``limit``.
        limit: the limit in parameters.
    """

    unit = 'parameters'

    def cost(self, graph: ChannelGraph, masks: Mapping[str, Tensor] | None) -> float:
        return graph.cost(masks).params


easypruner_components = hookimpl(lambda: [Params])
