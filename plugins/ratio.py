"""Budget: a share of the units."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from easypruner import Budget, Component, Context, Masks, hookimpl
from easypruner.errors import BudgetError, ConfigError, nearest
from easypruner.graph import ChannelGraph
from easypruner.graph.scopes import SCOPES, scopes_of
from easypruner.ranking import NO_LIMITS, Ranking, keep_best


class Ratio(Budget):
    """Keeps a share of the units: the best of the whole network, or of each scope.

    A group keeps what its limits ask for, and its best unit in any case.

    Args:
        keep: the share of units that stays, in 0..1.
        scope: which groups are ranked together: ``'global'`` all, ``'layer'`` none, ``'stage'``
            those of the same spatial extent, ``'isomorphic'`` those made of the same parts.
    """

    def __init__(self, keep: float, scope: str = 'global') -> None:
        if not 0 <= keep <= 1:
            raise ConfigError(f'keep={keep!r} of Ratio is not a share; expected a number in 0..1')
        if scope not in SCOPES:
            raise ConfigError(f'scope={scope!r} of Ratio is not known; {nearest(scope, SCOPES)}')
        self.keep = keep
        self.scope = scope

    def __call__(
        self, scores: Mapping[str, Tensor], graph: ChannelGraph, context: Context
    ) -> Masks:
        masks: dict[str, Tensor] = {}
        for names in scopes_of(graph, self.scope):
            masks |= self._cut({name: scores[name] for name in names if name in scores}, graph)
        return Masks({name: masks[name] for name in scores})

    def _cut(self, scores: Mapping[str, Tensor], graph: ChannelGraph) -> Masks:
        if self.scope != 'global' and len(scores) == 1:
            ((name, score),) = scores.items()
            limits = graph.limits.get(name, NO_LIMITS)
            return Masks({name: keep_best(score, round(self.keep * score.numel()), limits)})
        ranking = Ranking.of(scores, graph.limits)
        units = sum(ranking.sizes)
        remove = units - round(self.keep * units)
        if self.scope == 'global' and remove > len(ranking.order):
            least = units - len(ranking.order)
            raise BudgetError(
                f'Ratio(keep={self.keep}) asks for {units - remove} of {units} units, but each of '
                f'the {len(ranking.names)} groups keeps its best unit, or what its limits say; '
                f'keep={least / units:.4f} is the least that can be had'
            )
        return ranking.removing(min(remove, len(ranking.order)))

    @property
    def asked(self) -> float:
        return self.keep

    def delivered(self, masks: Masks, graph: ChannelGraph) -> float:
        units = sum(mask.numel() for mask in masks.values())
        return 1 - masks.removed_units / units if units else 1.0


@hookimpl
def easypruner_components() -> Iterable[type[Component]]:
    return [Ratio]
