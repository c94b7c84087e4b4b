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

_SCALES = frozenset(f'{n}.weight' for n in ('batch_norm', 'group_norm', 'layer_norm', 'rms_norm'))


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
    """Return the members of a group whose weights count; statistics and other buffers do not.

    In a group where no weight makes channels all its parameters count, and in one without
    parameters all its members.

    Args:
        graph: of the model.
        group: of the graph.
        over: a name of :data:`OVER`.
    """
    makers = group.members.makers if over == 'producers' else ()
    if makers:
        return list(makers)
    members = list(group.members)
    return [m for m in members if isinstance(graph.parameter(m.param), nn.Parameter)] or members


def gates_of(graph: ChannelGraph, group: ChannelGroup) -> list[list[Member]]:
    """Return for each gate on the channels of a group the parameters that it would multiply.

    A gate is a factor of 1 on each channel of a layer's output. Each norm with a scale has one;
    in a group without such a norm each layer that makes its channels has. The output is linear in
    the parameters (scale and bias, or weight and bias), so the gradient of the gate is the sum of
    their values times their gradients.
    """
    members = weights_of(graph, group, 'group')
    leads = [m for m in members if m.operand in _SCALES] or weights_of(graph, group, 'producers')
    return [[lead, *(m for m in members if _is_bias(m, lead))] for lead in leads]


def _is_bias(member: Member, lead: Member) -> bool:
    kind = lead.operand.rpartition('.')[0]
    return (
        member.operand == f'{kind}.bias'
        and member.module == lead.module
        and member.param != lead.param
    )


def wide(values: Tensor) -> Tensor:
    """Return values in single precision at the least, so that sums and squares hold."""
    return values if values.dtype in (torch.float32, torch.float64) else values.float()


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


def score_units(
    graph: ChannelGraph, over: str, measure: Callable[[Member], Tensor]
) -> dict[str, Tensor]:
    """Return group -> a measure of the weights of each unit.

    Args:
        graph: of the model.
        over: a name of :data:`OVER`.
        measure: of a member -> ``(units,)``.

    Returns:
        For the producers one row for each, ``(layers, units)``; for the group their sum,
        ``(units,)``. A weight that belongs to a unit in two dimensions counts in both.
    """
    scores = {}
    for name, group in graph.groups.items():
        layers = torch.stack([measure(m).cpu() for m in weights_of(graph, group, over)])
        scores[name] = layers if over == 'producers' else layers.sum(dim=0)
    return scores
