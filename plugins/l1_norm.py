"""Mask source: the L1 norm of filters (Li et al., 2017, arXiv 1608.08710)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from easypruner import Budget, Component, Context, MaskSource, hookimpl
from easypruner.graph import ChannelGraph, ChannelGroup, Member


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
            name: torch.stack([_norms(graph, member) for member in _producers(graph, group)])
            for name, group in graph.groups.items()
        }


def _producers(graph: ChannelGraph, group: ChannelGroup) -> list[Member]:
    """Return the weights that make a group's channels; failing these, all it consists of."""
    made = [
        member
        for member in group.members
        if member.role == 'out' and graph.parameter(member.param).dim() > 1
    ]
    return made or list(group.members)


def _norms(graph: ChannelGraph, member: Member) -> Tensor:
    weight = graph.parameter(member.param).detach()
    norms = (
        weight.abs().transpose(0, member.dim).flatten(1).sum(dim=1)
        if weight.dim() > 1
        else weight.abs()
    )
    return norms.cpu()[member.index].sum(dim=1)


@hookimpl
def easypruner_components() -> Iterable[type[Component]]:
    return [L1Norm]
