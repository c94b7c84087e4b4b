"""Budget: multiply-adds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from easypruner import Component, hookimpl
from easypruner.graph import ChannelGraph
from easypruner.strategies.budgets.costs import CostBudget


class Macs(CostBudget):
    """Removes the lowest-scored units until the network is at a limit of MACs, exactly counted.

    Args:
        keep: the limit as a share of the network's MACs, in 0..1; or
        limit: the limit in MACs, for the example inputs the graph was traced on.
    """

    unit = 'MACs'

    def cost(self, graph: ChannelGraph, masks: Mapping[str, Tensor] | None) -> float:
        return graph.cost(masks).macs


@hookimpl
def easypruner_components() -> Iterable[type[Component]]:
    return [Macs]
