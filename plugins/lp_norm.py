"""Mask source: the norms of filters (Li et al., 2017, arXiv 1608.08710)."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from easypruner import Budget, Component, Context, MaskSource, hookimpl
from easypruner.base.checks import check_name, check_number
from easypruner.errors import EasyPrunerError
from easypruner.graph import ChannelGraph, Member
from easypruner.strategies.measures.units import (
    OVER,
    measured,
    score_units,
    unit_rows,
    unit_sums,
    value,
    wide,
)

_PART = 1 << 18
"""Elements of a weight that are worked on at a time."""
_LARGEST = 600.0
"""The logarithm of the largest score, short of what double precision holds, for sums of them."""


class LpNorm(MaskSource):
    """Scores a unit by ``||w||_p = (sum of |w|^p)^(1/p)`` of its weights.

    Each convolution or linear layer that makes the channels of a group is one of the coupled
    layers that ``reduction`` combines. Filters of wider layers have larger norms, so scores are
    divided by their group's mean unless ``normalization`` says otherwise. With a p near 0 norms
    can be larger than double precision holds; then all are divided by the same number.

    Args:
        budget: how much may stay.
        p: above 0.
        over: ``'producers'``, the filters that make a unit's channels, as in the paper, or
            ``'group'``, one norm of all parameters of the coupled layers, readers, scales and
            biases among them.
        reduction: over the layers of a group.
        normalization: across groups.
    """

    def __init__(
        self,
        budget: Budget | None = None,
        p: float = 2.0,
        over: str = 'producers',
        reduction: str = 'mean',
        normalization: str = 'mean',
    ) -> None:
        super().__init__(budget, reduction, normalization)
        self.p = check_number(p, 'p', type(self).__name__, above=0)
        self.over = check_name(over, 'over', type(self).__name__, OVER)

    def score(self, graph: ChannelGraph, context: Context) -> dict[str, Tensor]:
        if self.p not in (1, 2):
            return self._by_logarithms(graph)
        sums = score_units(graph, self.over, lambda m: _power_sums(value(graph, m), m, self.p))
        return sums if self.p == 1 else {name: total.sqrt() for name, total in sums.items()}

    def _by_logarithms(self, graph: ChannelGraph) -> dict[str, Tensor]:
        """Return the norms for a p with which powers can be too large or too small to be held."""
        sums = {
            name: torch.stack([_log_sums(value(graph, m), m, self.p) for m in members])
            for name, members in measured(graph, self.over).items()
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
                    f'the norms of LpNorm(p={self.p:g}) are too far apart to be held: those of '
                    f'group {name!r} vanish beside others; use a p nearer to 1'
                )
        return scores


class L1Norm(LpNorm):
    """Scores a unit by the sum of |weight| of the filters that make its channels.

    It is ``LpNorm(p=1)``, the method of the paper; the arguments are described there.
    """

    def __init__(
        self,
        budget: Budget | None = None,
        over: str = 'producers',
        reduction: str = 'mean',
        normalization: str = 'mean',
    ) -> None:
        super().__init__(budget, 1, over, reduction, normalization)


class L2Norm(LpNorm):
    """Scores a unit by the Euclidean norm of the filters that make its channels.

    It is ``LpNorm(p=2)``, which the paper compares with; the arguments are described there.
    """

    def __init__(
        self,
        budget: Budget | None = None,
        over: str = 'producers',
        reduction: str = 'mean',
        normalization: str = 'mean',
    ) -> None:
        super().__init__(budget, 2, over, reduction, normalization)


def _power_sums(weight: Tensor, member: Member, p: float) -> Tensor:
    """Return the sum of |w|^p of each unit for a p of 1 or 2, ``(units,)``."""
    if member.dim or weight.dim() == 1:
        return unit_sums(_powers(weight, p), member)
    # In parts: the magnitudes of a large layer would not stay in the cache until summed.
    sums = torch.cat([_powers(part, p).sum(dim=1) for part in _in_parts(weight.flatten(1))])
    return sums.cpu()[member.index].sum(dim=1)


def _powers(weight: Tensor, p: float) -> Tensor:
    return wide(weight).abs() if p == 1 else wide(weight).square()


def _log_sums(weight: Tensor, member: Member, p: float) -> Tensor:
    """Return the logarithm of the sum of |w|^p of each unit, ``(units,)``."""
    sums = []
    # On the CPU: some devices have no double precision.
    for part in _in_parts(unit_rows(weight, member).cpu()):
        magnitudes = part.double().abs()
        largest = magnitudes.amax(dim=1)
        shares = magnitudes / torch.where(largest > 0, largest, 1)[:, None]
        sums.append(p * largest.log() + shares.pow(p).sum(dim=1).log())
    return torch.cat(sums)


def _in_parts(rows: Tensor) -> tuple[Tensor, ...]:
    return torch.split(rows, max(_PART // rows.shape[1], 1))


@hookimpl
def easypruner_components() -> Iterable[type[Component]]:
    return [LpNorm, L1Norm, L2Norm]
