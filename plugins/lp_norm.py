"""Mask sources: the norms of filters (Li et al., 2017, arXiv 1608.08710)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from easypruner import Budget, Context, hookimpl
from easypruner.base.checks import check_number
from easypruner.errors import EasyPrunerError
from easypruner.graph import ChannelGraph, Member
from easypruner.strategies.measures import units
from easypruner.strategies.sources.bases import WeightSource

_PART = 1 << 18
"""The number of elements of a weight that are processed at a time."""
_LARGEST = 600.0
"""The logarithm of the largest score; sums of such scores still fit into double precision."""


class _FilterNorm(WeightSource, normalization='mean'):
    """Scores a unit by ``(sum of |w|^p)^(1/p)`` of its weights."""

    p: float

    def score(self, graph: ChannelGraph, context: Context) -> dict[str, Tensor]:
        if self.p not in (1, 2):
            return self._by_logarithms(graph)
        sums = units.score_units(
            graph, self.over, lambda m: _power_sums(units.values_of(graph, m), m, self.p)
        )
        return sums if self.p == 1 else {name: total.sqrt() for name, total in sums.items()}

    def _by_logarithms(self, graph: ChannelGraph) -> dict[str, Tensor]:
        """Return the norms for a p with which powers may overflow or underflow."""
        sums = {
            name: torch.stack([_log_sums(units.values_of(graph, m), m, self.p) for m in members])
            for name, members in units.scored_members(graph, self.over).items()
        }
        if self.over == 'group':
            sums = {name: total.logsumexp(dim=0) for name, total in sums.items()}
        norms = {name: total / self.p for name, total in sums.items()}
        most = max((float(norm.max()) for norm in norms.values()), default=0.0)
        excess = max(most - _LARGEST, 0.0) if math.isfinite(most) else 0.0
        scores = {name: (norm - excess).exp() for name, norm in norms.items()}
        for name, norm in norms.items():
            if bool(((scores[name] == 0) & (norm > -math.inf)).any()):
                raise EasyPrunerError(
                    f'the norms of LpNorm(p={self.p:g}) differ too much for double precision: '
                    f'those of group {name!r} become 0; use a p nearer to 1'
                )
        return scores


class L1Norm(_FilterNorm):
    """Scores a unit by the sum of |weight| of the filters that produce its channels.

    This is the method of the paper (section 3.1). Each convolution or linear layer that produces
    the channels of a group is one of the coupled layers that ``reduction`` combines. Filters of
    wide layers have larger norms, so scores are divided by the mean of their group unless
    ``normalization`` is changed.

    Use when:
        A simple baseline is needed that works on every network and needs no data. With training
        after the cut, it is often close to more elaborate sources. The paper prunes VGG-16 on
        CIFAR-10 by 34 % and ResNet-110 by up to 38 % of the operations in this way.

    Fails when:
        A batch norm follows: it makes the output independent of a filter's norm, so the norm says
        little. Ratios are high and no training follows.

    Values:
        ``normalization='mean'`` with a budget that ranks all groups together. The paper chooses a
        ratio for each layer by ``Sensitivity``.
    """

    p = 1.0


class L2Norm(_FilterNorm):
    """Scores a unit by the Euclidean norm of the filters that produce its channels.

    The paper finds no noticeable difference to ``L1Norm`` (in its appendix).

    Use when:
        See ``L1Norm``. Soft filter pruning (He et al., 2018, arXiv 1808.06866) uses this norm; see
        ``Zero``.

    Fails when:
        See ``L1Norm``.

    Values:
        See ``L1Norm``.
    """

    p = 2.0


class LpNorm(_FilterNorm):
    """Scores a unit by ``||w||_p = (sum of |w|^p)^(1/p)`` of its weights.

    ``L1Norm`` and ``L2Norm`` are the common cases. With a p near 0, norms can exceed double
    precision; then all norms are divided by the same number.

    Use when:
        The norm is to be varied: a small p counts the weights that are not zero, a large p finds
        the largest weight.

    Fails when:
        See ``L1Norm``. A very small p makes the norms differ so much that the source refuses them.

    Values:
        ``p`` of 1 or 2.

    Args:
        p: the exponent, above 0.
    """

    def __init__(
        self,
        budget: Budget | Sequence[Budget] | None = None,
        p: float = 2.0,
        over: str = 'producers',
        reduction: str = 'mean',
        normalization: str = 'mean',
    ) -> None:
        super().__init__(budget, over, reduction, normalization)
        self.p = check_number(p, 'p', 'LpNorm', above=0)


def _power_sums(weight: Tensor, member: Member, p: float) -> Tensor:
    """Return the sum of |w|^p of each unit for a p of 1 or 2, ``(units,)``."""
    if member.dim or weight.dim() == 1:
        return units.unit_sums(_powers(weight, p), member)
    # In parts, because the magnitudes of a large layer would not fit into the cache.
    sums = [_powers(part, p).sum(dim=1) for part in _in_parts(weight.flatten(1))]
    return units.sums_of_units((sums[0] if len(sums) == 1 else torch.cat(sums)).cpu(), member)


def _powers(weight: Tensor, p: float) -> Tensor:
    return units.widen(weight).abs() if p == 1 else units.widen(weight).square()


def _log_sums(weight: Tensor, member: Member, p: float) -> Tensor:
    """Return the logarithm of the sum of |w|^p of each unit, ``(units,)``."""
    sums = []
    # On the CPU, because some devices do not have double precision.
    for part in _in_parts(units.unit_rows(weight, member).cpu()):
        magnitudes = part.double().abs()
        largest = magnitudes.amax(dim=1)
        shares = magnitudes / torch.where(largest > 0, largest, 1)[:, None]
        sums.append(p * largest.log() + shares.pow(p).sum(dim=1).log())
    return torch.cat(sums)


def _in_parts(rows: Tensor) -> tuple[Tensor, ...]:
    count = max(_PART // rows.shape[1], 1)
    return (rows,) if rows.shape[0] <= count else torch.split(rows, count)


easypruner_components = hookimpl(lambda: [LpNorm, L1Norm, L2Norm])
