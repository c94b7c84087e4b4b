"""Mask source: the norms of filters (Li et al., 2017, arXiv 1608.08710)."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from easypruner import Budget, Component, Context, MaskSource, hookimpl
from easypruner.errors import ConfigError
from easypruner.graph import ChannelGraph, Member
from easypruner.toolkit.units import check_over, score_units, unit_sums, wide

_PART = 1 << 18
"""Elements of a weight that are worked on at a time."""


class LpNorm(MaskSource):
    """Scores a unit by ``||w||_p = (sum of |w|^p)^(1/p)`` of its weights.

    Each convolution or linear layer that makes the channels of a group is one of the coupled
    layers that ``reduction`` combines. Filters of wider layers have larger norms, so scores are
    divided by their group's mean unless ``normalization`` says otherwise.

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
        number = isinstance(p, int | float) and not isinstance(p, bool)
        if not number or not math.isfinite(p) or p <= 0:
            raise ConfigError(f'p={p!r} of {type(self).__name__} must be a number above 0')
        self.p = p
        self.over = check_over(over, type(self).__name__)

    def score(self, graph: ChannelGraph, context: Context) -> dict[str, Tensor]:
        def powers(member: Member) -> Tensor:
            return _power_sums(graph.parameter(member.param).detach(), member, self.p)

        sums = score_units(graph, self.over, powers)
        if self.p == 1:
            return sums
        return {name: total ** (1 / self.p) for name, total in sums.items()}


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
    """Return the sum of |w|^p of each unit, ``(units,)``."""
    if member.dim or weight.dim() == 1:
        return unit_sums(_powers(weight, p), member)
    # In parts: the magnitudes of a large layer would not stay in the cache until summed.
    rows = weight.flatten(1)
    parts = torch.split(rows, max(_PART // rows.shape[1], 1))
    sums = torch.cat([_powers(part, p).sum(dim=1) for part in parts])
    return sums.cpu()[member.index].sum(dim=1)


def _powers(weight: Tensor, p: float) -> Tensor:
    if p in (1, 2):
        return wide(weight).abs() if p == 1 else wide(weight).square()
    # High powers of small weights vanish in single precision, and not every device has double.
    return weight.cpu().double().abs().pow(p)


@hookimpl
def easypruner_components() -> Iterable[type[Component]]:
    return [LpNorm, L1Norm, L2Norm]
