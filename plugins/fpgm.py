"""Mask source: distance to the other filters (FPGM; He et al., 2019, arXiv 1811.00250)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from easypruner import Budget, Component, Context, MaskSource, hookimpl
from easypruner.graph import ChannelGraph, Member
from easypruner.toolkit.units import score_units, unit_rows, wide


class FPGM(MaskSource):
    """Scores a unit by the sum of Euclidean distances of its filter to all others of the layer.

    ``s_u = sum over v of ||F_u - F_v||_2``: the lowest is nearest to the geometric median of the
    filters, and the others can stand in for it. Each convolution or linear layer that makes the
    channels of a group is one of the coupled layers that ``reduction`` combines. The paper removes
    the same share of every layer, as ``Ratio(keep, scope='layer')`` does; to rank layers together,
    scores are divided by their group's mean unless ``normalization`` says otherwise.

    Args:
        budget: how much may stay.
        reduction: over the layers of a group.
        normalization: across groups.
    """

    def __init__(
        self,
        budget: Budget | None = None,
        reduction: str = 'mean',
        normalization: str = 'mean',
    ) -> None:
        super().__init__(budget, reduction, normalization)

    def score(self, graph: ChannelGraph, context: Context) -> dict[str, Tensor]:
        def distances(member: Member) -> Tensor:
            weight = wide(graph.parameter(member.param).detach())
            return _distances(unit_rows(weight, member).cpu())

        return score_units(graph, 'producers', distances)


def _distances(filters: Tensor) -> Tensor:
    """Return the sum of distances of each row to all, ``(units,)``."""
    # By differences, in which equal filters have a distance of exactly zero. By a matrix product
    # they would have rounding errors, and these a ranking.
    distances = torch.nn.functional.pdist(filters).double()
    first, second = torch.triu_indices(len(filters), len(filters), 1)
    sums = distances.new_zeros(len(filters))
    return sums.index_add_(0, first, distances).index_add_(0, second, distances)


@hookimpl
def easypruner_components() -> Iterable[type[Component]]:
    return [FPGM]
