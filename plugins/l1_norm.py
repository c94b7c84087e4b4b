"""Mask source: the L1 norm of filters (Li et al., 2017, arXiv 1608.08710)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from easypruner import Budget, Component, Context, MaskSource, hookimpl
from easypruner.graph import ChannelGraph, Member

_PART = 1 << 18
"""Elements of a weight that are worked on at a time."""


class L1Norm(MaskSource):
    """Scores a unit by the sum of |weight| of the filters that make its channels.

    Each convolution or linear layer that makes the channels of a group is one of the coupled
    layers that ``reduction`` combines. Filters of wider layers have larger sums, so scores are
    divided by their group's mean unless ``normalization`` says otherwise.

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
        return {
            name: torch.stack([_norms(graph, member) for member in group.producers])
            for name, group in graph.groups.items()
        }


def _norms(graph: ChannelGraph, member: Member) -> Tensor:
    weight = graph.parameter(member.param).detach()
    if member.dim == 0 and weight.dim() > 1:
        # In parts: the magnitudes of a large layer would not stay in the cache until summed.
        rows = weight.flatten(1)
        parts = torch.split(rows, max(_PART // rows.shape[1], 1))
        norms = torch.cat([part.abs().sum(dim=1) for part in parts])
    else:
        norms = weight.abs().sum(dim=[dim for dim in range(weight.dim()) if dim != member.dim])
    return norms.cpu()[member.index].sum(dim=1)


@hookimpl
def easypruner_components() -> Iterable[type[Component]]:
    return [L1Norm]
