"""The summary of a channel graph: totals, what each group holds, what is frozen and why."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from easypruner.graph import ChannelGraph, Cost, Frozen

# The operation and the module that a reason ends in.
_PLACE = re.compile(r': (\w+ in (?:the model itself|\S+))$')


@dataclass(frozen=True)
class GroupRow:
    """A group and what it holds.

    Attributes:
        name: of the group.
        units: in it.
        layers: dotted paths of the modules it cuts, in the order of the forward pass.
        cost: what goes if the whole group goes.
        mixed: operations that mix its channels, such as ``'native_layer_norm in norm1'``.
    """

    name: str
    units: int
    layers: tuple[str, ...]
    cost: Cost
    mixed: tuple[str, ...]


@dataclass(frozen=True)
class FrozenRow:
    """What is frozen for one reason.

    Attributes:
        reason: without the operation and the module.
        dims: dimensions of parameters that stay for it, whole or in part.
        channels: of all of them.
        example: the first of the modules that own the parameters.
    """

    reason: str
    dims: int
    channels: int
    example: str


@dataclass(frozen=True)
class Analysis:
    """What there is to know about a network before it is pruned.

    Attributes:
        cost: of the whole network.
        prunable_params: elements of the parameters with a dimension that can be pruned.
        groups: in the order of the forward pass.
        frozen: most channels first.
    """

    cost: Cost
    prunable_params: int
    groups: tuple[GroupRow, ...]
    frozen: tuple[FrozenRow, ...]


def analyze(graph: ChannelGraph) -> Analysis:
    """Sum up a channel graph.

    >>> from torch import nn, zeros
    >>> from easypruner import trace
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1))
    >>> found = analyze(trace(net, zeros(1, 3, 8, 8)))
    >>> found.groups[0].units, found.groups[0].layers, found.groups[0].cost.params
    (8, ('0', '2'), 256)
    >>> found.frozen[0]
    FrozenRow(reason='an output of the model (output)', dims=2, channels=8, example='2')
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
    )


def aggregate(frozen: Iterable[Frozen]) -> tuple[FrozenRow, ...]:
    """Put together what is frozen for the same reason, at whatever operation."""
    rows: dict[str, FrozenRow] = {}
    for entry in frozen:
        reason = _PLACE.sub('', entry.reason)
        row = rows.get(reason, FrozenRow(reason, 0, 0, entry.param.rpartition('.')[0]))
        rows[reason] = FrozenRow(reason, row.dims + 1, row.channels + entry.channels, row.example)
    return tuple(sorted(rows.values(), key=lambda row: -row.channels))


def _prunable_params(graph: ChannelGraph) -> int:
    prunable = {member.param for group in graph.groups.values() for member in group.members}
    return sum(p.numel() for name, p in graph.model.named_parameters() if name in prunable)
