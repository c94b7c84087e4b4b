"""Mask source: distance to the other filters (FPGM; He et al., 2019, arXiv 1811.00250)."""

from __future__ import annotations

import torch
from torch import Tensor

from easypruner import Context, MaskSource, hookimpl
from easypruner.graph import ChannelGraph, Member
from easypruner.strategies.measures.units import score_units, unit_rows, values_of, widen

_ROWS = 512
"""The number of filters that are compared with as many others at a time."""
_NEAR = 1e-6
"""Filters are near if their squared distance is below this share of their squared norms."""


class FPGM(MaskSource, normalization='mean'):
    """Scores a unit by the sum of Euclidean distances of its filter to all others of the layer.

    ``s_u = sum over v of ||F_u - F_v||_2``. The filter with the lowest score is nearest to the
    geometric median of the layer, so the others can represent it. Each convolution or linear layer
    that produces the channels of a group is one of the coupled layers that ``reduction`` combines.
    Scores are divided by the mean of their group unless ``normalization`` is changed.

    Use when:
        Filters have similar norms, so that a norm does not separate them, or many filters are
        redundant. No data is needed.

    Fails when:
        A layer has few filters, which are all far from each other. A filter of zeros is removed
        only if others are close to it; ``L2Norm`` finds such filters.

    Values:
        The paper removes the same share of every layer, 30 % to 40 % on ImageNet:
        ``budget=dict(type='Ratio', keep=0.7, scope='layer')``.
    """

    def score(self, graph: ChannelGraph, context: Context) -> dict[str, Tensor]:
        def distances(member: Member) -> Tensor:
            return _distances(unit_rows(widen(values_of(graph, member)), member).cpu())

        return score_units(graph, 'producers', distances)


def _distances(filters: Tensor) -> Tensor:
    """Return the sum of distances of each row to all rows, ``(units,)``."""
    # NaN cannot be sorted, and torch.unique sorts.
    if not bool(filters.isfinite().all()):
        return filters.new_full((len(filters),), float('nan'))
    # Count equal filters, of which there can be many, instead of comparing them.
    rows, inverse, counts = torch.unique(filters, dim=0, return_inverse=True, return_counts=True)
    parts = torch.split(rows, _ROWS)
    times = torch.split(counts.double(), _ROWS)
    sums = [torch.zeros_like(own) for own in times]
    for first, one in enumerate(parts):
        one = one.double()
        between = _pairwise(one, one).fill_diagonal_(0)
        sums[first] += between @ times[first]
        for second in range(first):
            between = _pairwise(one, parts[second].double())
            sums[first] += between @ times[second]
            sums[second] += times[first] @ between
    return torch.cat(sums)[inverse]


def _pairwise(one: Tensor, two: Tensor) -> Tensor:
    """Return the distances between the rows of two tensors."""
    squares = _squares(one)[:, None] + _squares(two)
    distances = torch.addmm(squares, one, two.T, alpha=-2).clamp_(min=0)
    near = distances < _NEAR * squares
    distances.sqrt_()
    if one is two:
        near.fill_diagonal_(False)
    # A small difference of large norms is mostly a rounding error, so compute it directly.
    for pairs in torch.split(near.nonzero(), _ROWS):
        difference = one[pairs[:, 0]] - two[pairs[:, 1]]
        distances[pairs[:, 0], pairs[:, 1]] = difference.norm(dim=1)
    return distances


def _squares(rows: Tensor) -> Tensor:
    return torch.linalg.vector_norm(rows, dim=1).square()


easypruner_components = hookimpl(lambda: [FPGM])
