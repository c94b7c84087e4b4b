"""The summary of a channel graph: total cost, the cost of each group, what is frozen and why."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from easypruner.graph import ChannelGraph, Cost, Frozen, KindShare

# The operation and the module at the end of a reason.
_LOCATION = re.compile(r': (\w+ in (?:the model itself|\S+))$')


@dataclass(frozen=True)
class GroupRow:
    """A group with its layers and its cost.

    Attributes:
        name: the name of the group.
        units: the number of units.
        layers: the dotted paths of the modules that it cuts, in the order of the forward pass.
        cost: the cost that is saved if the whole group is removed.
        mixed: operations that mix its channels, such as ``'native_layer_norm in norm1'``.
    """

    name: str
    units: int
    layers: tuple[str, ...]
    cost: Cost
    mixed: tuple[str, ...]


@dataclass(frozen=True)
class FrozenRow:
    """The channels that are frozen for the same reason.

    Attributes:
        reason: the reason, without the operation and the module.
        dims: the number of dimensions of parameters that have such channels.
        channels: the number of frozen channels in all these dimensions.
        example: the first module that owns one of the parameters.
    """

    reason: str
    dims: int
    channels: int
    example: str


@dataclass(frozen=True)
class Analysis:
    """The analysis of a network before pruning.

    Attributes:
        cost: the cost of the whole network.
        prunable_params: the number of elements of parameters that have a prunable dimension.
        groups: the groups, in the order of the forward pass.
        frozen: the frozen channels by reason, most channels first.
        shares: how much of each kind of structure can go, such as heads, and what holds the rest.
        notes: what of the options for the graph could not be done, and why.
    """

    cost: Cost
    prunable_params: int
    groups: tuple[GroupRow, ...]
    frozen: tuple[FrozenRow, ...]
    shares: tuple[KindShare, ...] = ()
    notes: tuple[str, ...] = ()


def analyze(graph: ChannelGraph) -> Analysis:
    """Summarize a channel graph.

    >>> from torch import nn, zeros
    >>> from easypruner import trace
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1))
    >>> found = analyze(trace(net, zeros(1, 3, 8, 8)))
    >>> found.groups[0].units, found.groups[0].layers, found.groups[0].cost.params
    (8, ('0', '2'), 256)
    >>> found.frozen[0]
    FrozenRow(reason='an output of the model (output)', dims=2, channels=8, example='2')
    >>> [(share.kind, share.prunable, share.units) for share in found.shares]
    [('convolution', 8, 8), ('outputs', 0, 4)]
    """
    costs = graph.group_costs()
    return Analysis(
        cost=graph.cost(),
        prunable_params=_prunable_params(graph),
        groups=tuple(
            GroupRow(
                name=group.name,
                units=group.size,
                layers=tuple(dict.fromkeys(member.module for member in group.members)),
                cost=costs[group.name],
                mixed=group.mixed,
            )
            for group in graph.groups.values()
        ),
        frozen=aggregate(graph.frozen),
        shares=graph.shares,
        notes=graph.notes,
    )


def aggregate(frozen: Iterable[Frozen]) -> tuple[FrozenRow, ...]:
    """Group frozen dimensions by reason, without the operation and the module."""
    rows: dict[str, FrozenRow] = {}
    for entry in frozen:
        reason = _LOCATION.sub('', entry.reason)
        row = rows.get(reason, FrozenRow(reason, 0, 0, entry.param.rpartition('.')[0]))
        rows[reason] = FrozenRow(reason, row.dims + 1, row.channels + entry.channels, row.example)
    return tuple(sorted(rows.values(), key=lambda row: -row.channels))


def _prunable_params(graph: ChannelGraph) -> int:
    prunable = {member.param for group in graph.groups.values() for member in group.members}
    return sum(p.numel() for name, p in graph.model.named_parameters() if name in prunable)
