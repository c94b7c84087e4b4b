"""Mask source: layer-adaptive magnitudes (LAMP; Lee et al., 2021, arXiv 2010.07611)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from easypruner import Budget, Component, Context, MaskSource, hookimpl
from easypruner.base.checks import check_name
from easypruner.graph import ChannelGraph, Member
from easypruner.strategies.measures.units import OVER, score_units, unit_sums, value, wide
from easypruner.strategies.sources.scores import lamp


class Lamp(MaskSource):
    """Scores a unit by its squared magnitude over that of all units that are not smaller.

    ``s_u = ||W_u||^2 / sum of ||W_v||^2 over v not before u``, the units of a layer sorted by
    magnitude: the paper's score, of units instead of single weights. The largest unit of each layer
    scores 1, and layers need no normalization to be ranked with each other. Of units of the same
    magnitude the earlier counts as the smaller, as in the paper.

    Args:
        budget: how much may stay.
        over: ``'producers'``, each layer that makes the channels with scores of its own, or
            ``'group'``, all parameters of the coupled layers taken together first.
        reduction: over the layers of a group.
        normalization: across groups.
    """

    def __init__(
        self,
        budget: Budget | None = None,
        over: str = 'producers',
        reduction: str = 'mean',
        normalization: str = 'none',
    ) -> None:
        super().__init__(budget, reduction, normalization)
        self.over = check_name(over, 'over', 'Lamp', OVER)

    def score(self, graph: ChannelGraph, context: Context) -> dict[str, Tensor]:
        def squares(member: Member) -> Tensor:
            return unit_sums(wide(value(graph, member)).square(), member)

        sums = score_units(graph, self.over, squares)
        return {
            name: lamp(layers) if layers.dim() == 1 else torch.stack([lamp(s) for s in layers])
            for name, layers in sums.items()
        }


@hookimpl
def easypruner_components() -> Iterable[type[Component]]:
    return [Lamp]
