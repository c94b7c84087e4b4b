"""Mask source: distance to the other filters (FPGM; He et al., 2019, arXiv 1811.00250)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from easypruner import Budget, Component, Context, MaskSource, hookimpl
from easypruner.graph import ChannelGraph, Member
from easypruner.strategies.measures.units import score_units, unit_rows, value, wide

_ROWS = 512
"""Filters that are compared with as many others at a time."""
_NEAR = 1e-6
"""Filters are near if their squared distance is less than this share of their squared norms."""


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
            return _distances(unit_rows(wide(value(graph, member)), member).cpu())

        return score_units(graph, 'producers', distances)


def _distances(filters: Tensor) -> Tensor:
    """Return the sum of distances of each row to all, ``(units,)``."""
    # They are sorted below, and what is no number has no place in an order.
    if not bool(filters.isfinite().all()):
        return filters.new_full((len(filters),), float('nan'))
    # Equal filters, of which there can be many, are one that is there several times.
    rows, place, counts = torch.unique(filters, dim=0, return_inverse=True, return_counts=True)
    parts = torch.split(rows, _ROWS)
    times = torch.split(counts.double(), _ROWS)
    sums = [torch.zeros_like(own) for own in times]
    for first, one in enumerate(parts):
        one = one.double()
        apart = _apart(one, one).fill_diagonal_(0)
        sums[first] += apart @ times[first]
        for second in range(first):
            apart = _apart(one, parts[second].double())
            sums[first] += apart @ times[second]
            sums[second] += times[first] @ apart
    return torch.cat(sums)[place]


def _apart(one: Tensor, two: Tensor) -> Tensor:
    """Return the distances of rows to other rows."""
    squares = _squares(one)[:, None] + _squares(two)
    distances = torch.addmm(squares, one, two.T, alpha=-2).clamp_(min=0)
    near = distances < _NEAR * squares
    distances.sqrt_()
    if one is two:
        near.fill_diagonal_(False)
    # Where next to nothing is left of the norms, it is rounding errors.
    for pairs in torch.split(near.nonzero(), _ROWS):
        difference = one[pairs[:, 0]] - two[pairs[:, 1]]
        distances[pairs[:, 0], pairs[:, 1]] = difference.norm(dim=1)
    return distances


def _squares(rows: Tensor) -> Tensor:
    return torch.linalg.vector_norm(rows, dim=1).square()


@hookimpl
def easypruner_components() -> Iterable[type[Component]]:
    return [FPGM]
