"""Budget: multiply-adds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from easypruner import Budget, Component, Context, Masks, hookimpl
from easypruner.errors import ConfigError
from easypruner.graph import ChannelGraph
from easypruner.ranking import Ranking


class Macs(Budget):
    """Removes the lowest-scored units until the network is at a limit of MACs.

    The cost of each candidate is exact. Units that still fit at the end are given back, the best
    first, so that the limit is met to within the cheapest unit. The best unit of each group is
    always kept.

    Args:
        keep: the limit as a share of the network's MACs, in 0..1; or
        limit: the limit in MACs, for the example inputs the graph was traced on.
    """

    def __init__(self, keep: float | None = None, limit: float | None = None) -> None:
        if (keep is None) == (limit is None):
            raise ConfigError('Macs takes either keep (a share) or limit (MACs)')
        if keep is not None and not 0 <= keep <= 1:
            raise ConfigError(f'keep={keep!r} of Macs is not a share; expected a number in 0..1')
        if limit is not None and limit < 0:
            raise ConfigError(f'limit={limit!r} of Macs is below 0')
        self.keep = keep
        self.limit = limit

    def __call__(
        self, scores: Mapping[str, Tensor], graph: ChannelGraph, context: Context
    ) -> Masks:
        limit = self.limit if self.keep is None else self.keep * graph.cost().macs
        assert limit is not None
        ranking = Ranking.of(scores, graph.limits)
        return ranking.within(lambda masks: graph.cost(masks).macs, limit, 'MACs')

    @property
    def asked(self) -> float:
        value = self.limit if self.keep is None else self.keep
        assert value is not None
        return value

    def delivered(self, masks: Masks, graph: ChannelGraph) -> float:
        macs = graph.cost(masks).macs
        return macs if self.keep is None else macs / graph.cost().macs


@hookimpl
def easypruner_components() -> Iterable[type[Component]]:
    return [Macs]
