"""Units: what belongs to each unit of a group, added up over its weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from easypruner.errors import ConfigError, nearest

if TYPE_CHECKING:
    from easypruner.graph import ChannelGraph, ChannelGroup, Member

OVER = ('producers', 'group')
"""Which weights of a group count: those that make its channels, or all parameters of it."""


def check_over(over: str, owner: str) -> str:
    """Return ``over`` if it is one of :data:`OVER`.

    Args:
        over: as a config gives it.
        owner: whose argument it is, for the message.

    Raises:
        ConfigError: it is not.
    """
    if over not in OVER:
        raise ConfigError(f'over={over!r} of {owner} is not known; {nearest(over, OVER)}')
    return over


def weights_of(graph: ChannelGraph, group: ChannelGroup, over: str) -> list[Member]:
    """Return the members of a group whose weights count; buffers never do."""
    members = group.producers if over == 'producers' else group.members
    return [m for m in members if isinstance(graph.parameter(m.param), nn.Parameter)]


def unit_sums(values: Tensor, member: Member) -> Tensor:
    """Add up what belongs to each unit in one dimension of a tensor.

    Args:
        values: one for each element of the member's parameter, in its shape.
        member: of a group.

    Returns:
        ``(units,)``, on the device of ``values``.
    """
    others = [dim for dim in range(values.dim()) if dim != member.dim]
    along = values.sum(dim=others) if others else values
    return along[member.index.to(along.device)].sum(dim=1)


def unit_rows(values: Tensor, member: Member) -> Tensor:
    """Return the elements of each unit in one dimension of a tensor, ``(units, elements)``."""
    moved = values.movedim(member.dim, 0).flatten(1) if values.dim() > 1 else values[:, None]
    return moved[member.index.to(moved.device)].flatten(1)


def score_layers(
    graph: ChannelGraph, over: str, measure: Callable[[Tensor, Member], Tensor]
) -> dict[str, Tensor]:
    """Return group -> ``(layers, units)``: a measure of each weight that counts.

    Args:
        graph: of the model.
        over: a name of :data:`OVER`.
        measure: of a weight (without history) and its member -> ``(units,)``.
    """
    return {
        name: torch.stack(
            [
                measure(graph.parameter(member.param).detach(), member).cpu()
                for member in weights_of(graph, group, over)
            ]
        )
        for name, group in graph.groups.items()
    }
