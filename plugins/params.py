"""Budget: parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from easypruner import Component, hookimpl
from easypruner.graph import ChannelGraph
from easypruner.strategies.budgets.costs import CostBudget


class Params(CostBudget):
    """Removes the lowest-scored units until the network is at a limit of parameters.

    Tied parameters count once, buffers not at all.

    Args:
        keep: the limit as a share of the network's parameters, in 0..1; or
        limit: the limit in parameters.
    """

    unit = 'parameters'

    def cost(self, graph: ChannelGraph, masks: Mapping[str, Tensor] | None) -> float:
        return graph.cost(masks).params


@hookimpl
def easypruner_components() -> Iterable[type[Component]]:
    return [Params]
