"""Budget: a share of the units."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from torch import Tensor

from easypruner import Budget, Component, Context, Masks, hookimpl
from easypruner.errors import BudgetError, ConfigError
from easypruner.graph import ChannelGraph
from easypruner.ranking import Ranking


class Ratio(Budget):
    """Keeps a share of the units: the best of the whole network, or the best of each group.

    The best unit of a group is always kept.

    Args:
        keep: the share of units that stays, in 0..1.
        scope: ``'global'`` ranks all units together, ``'layer'`` each group by itself.
    """

    def __init__(self, keep: float, scope: Literal['global', 'layer'] = 'global') -> None:
        if not 0 <= keep <= 1:
            raise ConfigError(f'keep={keep!r} of Ratio is not a share; expected a number in 0..1')
        if scope not in ('global', 'layer'):
            raise ConfigError(
                f"scope={scope!r} of Ratio is not known; expected 'global' or 'layer'"
            )
        self.keep = keep
        self.scope = scope

    def __call__(
        self, scores: Mapping[str, Tensor], graph: ChannelGraph, context: Context
    ) -> Masks:
        if self.scope == 'global':
            return self._cut(scores)
        masks: dict[str, Tensor] = {}
        for name, score in scores.items():
            masks |= self._cut({name: score})
        return Masks(masks)

    def _cut(self, scores: Mapping[str, Tensor]) -> Masks:
        ranking = Ranking.of(scores)
        units = sum(ranking.sizes)
        remove = units - round(self.keep * units)
        if self.scope == 'global' and remove > len(ranking.order):
            raise BudgetError(
                f'Ratio(keep={self.keep}) asks for {units - remove} of {units} units, but each of '
                f'the {len(ranking.names)} groups keeps its best unit; '
                f'keep={len(ranking.names) / units:.4f} is the least that can be had'
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
