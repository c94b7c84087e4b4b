"""Mask source: the share of activations that are not zero (Hu et al., 2016, arXiv 1607.03250)."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from easypruner import Budget, Component, Context, MaskSource, hookimpl
from easypruner.base.checks import check_count
from easypruner.graph import ChannelGraph
from easypruner.strategies.measures.activations import collect


class APoZ(MaskSource):
    """Scores a unit by 1 - APoZ, one less the average percentage of zeros of its channels.

    Equation 1 of the paper: APoZ is the number of zeros over samples and positions, divided by
    the number of both. Channels are looked at as the layers that read them get them, behind norm
    and activation; each such layer is one of the coupled layers that ``reduction`` combines.

    It tells little where activations have no zeros (GELU, SiLU), or are pooled before they are
    read.

    Args:
        budget: how much may stay.
        batches: of training data.
        reduction: over the layers that read a group.
        normalization: across groups; shares compare as they are.
    """

    def __init__(
        self,
        budget: Budget | None = None,
        batches: int = 10,
        reduction: str = 'mean',
        normalization: str = 'none',
    ) -> None:
        super().__init__(budget, reduction, normalization)
        self.batches = check_count(batches, 'batches', 'APoZ')

    def score(self, graph: ChannelGraph, context: Context) -> dict[str, Tensor]:
        return collect(graph, context, self.batches, 'APoZ', lambda maps: maps != 0)


@hookimpl
def easypruner_components() -> Iterable[type[Component]]:
    return [APoZ]
