"""Units: what belongs to each unit of a group, added up over its weights."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from easypruner.graph import ChannelGraph, ChannelGroup
from easypruner.graph.coupling.layout import Member
from easypruner.graph.recording.parametrized import computed_value, computed_weights, weight_norms

OVER = ('producers', 'group')
"""Which weights of a group count: those that make its channels, or all parameters of it."""

_SCALES = frozenset(f'{n}.weight' for n in ('batch_norm', 'group_norm', 'layer_norm', 'rms_norm'))


def weights_of(graph: ChannelGraph, group: ChannelGroup, over: str) -> list[Member]:
    """Return the members of a group that a regularizer pushes; statistics and buffers are none.

    In a group where no weight makes channels all its parameters count, and in one without
    parameters all its members. Under weight norm the lengths count, and directions only where they
    are not what has these lengths.

    Args:
        graph: of the model.
        group: of the graph.
        over: a name of :data:`OVER`.
    """
    wholes = _Wholes.of(graph, [group], partly=True)
    chosen = wholes.counting(group, over)
    if not wholes.ranks:
        return chosen
    counting = {(member.param, member.dim) for member in chosen}
    idle = {(n.direction, n.dim) for n in weight_norms(dict(graph.model.named_modules()))}
    members = [
        member
        for member in group.members
        if (member.param, member.dim) not in idle
        and not counting.isdisjoint(
            wholes.parts.get((member.param, member.dim), [(member.param, member.dim)])
        )
    ]
    return _parameters(graph, members)


def measured(graph: ChannelGraph, over: str) -> dict[str, list[Member]]:
    """Return group -> the members that its units are measured by, with values by :func:`value`.

    Which these are depends on ``over`` as for :func:`weights_of`. But weights that are computed
    from other tensors (weight norm, masks of torch) are measured themselves, once: what a part of
    them holds means nothing without the others.

    Args:
        graph: of the model.
        over: a name of :data:`OVER`.
    """
    wholes = _Wholes.of(graph, graph.groups.values())
    return {name: wholes.counting(group, over) for name, group in graph.groups.items()}


def used_members(graph: ChannelGraph) -> dict[str, list[Member]]:
    """Return group -> its members, but computed weights instead of what they are computed from."""
    wholes = _Wholes.of(graph, graph.groups.values(), partly=True)
    return {name: wholes.members(group) for name, group in graph.groups.items()}


def value(graph: ChannelGraph, member: Member) -> Tensor:
    """Return what a member of :func:`measured` holds, without a gradient."""
    layer, local = graph.model.get_submodule(member.module), member.param.rpartition('.')[2]
    if local in layer._parameters or local in layer._buffers:
        return graph.parameter(member.param).detach()
    return computed_value(layer, local)


@dataclass(frozen=True)
class _Wholes:
    """Weights that are computed from other tensors.

    Attributes:
        graph: of the model.
        ranks: of each, how many dimensions it has.
        parts: (tensor, dimension) -> (weight that is computed from it, the dimension there).
    """

    graph: ChannelGraph
    ranks: Mapping[str, int]
    parts: Mapping[tuple[str, int], Sequence[tuple[str, int]]]

    @classmethod
    def of(
        cls, graph: ChannelGraph, groups: Collection[ChannelGroup], partly: bool = False
    ) -> _Wholes:
        """Look for them.

        Where some of the groups are channels between the parts, as in a product of two factors,
        each part is a weight of its own, unless ``partly`` counts the channels that are not.
        """
        computed = computed_weights(graph.model)
        sources = {name for weight in computed.values() for name in weight.sources}
        places = {
            (member.param, member.dim)
            for group in (groups if computed else ())
            for member in group.members
            if member.param in sources
        }
        ranks: dict[str, int] = {}
        parts: dict[tuple[str, int], list[tuple[str, int]]] = {}
        for name, weight in computed.items():
            own = [(place, weight.dim_of(*place)) for place in places if place[0] in weight.sources]
            found = [(place, dim) for place, dim in own if dim is not None]
            if partly or len(found) == len(own):
                ranks[name] = weight.value().dim()
                for place, dim in found:
                    parts.setdefault(place, []).append((name, dim))
        return cls(graph, ranks, parts)

    def members(self, group: ChannelGroup) -> list[Member]:
        """Return the members of a group, weights in place of their parts."""
        found: dict[tuple[str, int], Member] = {}
        for member in group.members:
            wholes = self.parts.get((member.param, member.dim))
            for name, dim in wholes or [(member.param, member.dim)]:
                # Of several parts it may be one that reads channels, and the others go with it.
                known = found.get((name, dim), member)
                role = member.role if known.role == 'out' else 'in'
                operand = self._operand(name) if wholes else member.operand
                found[name, dim] = Member(name, dim, role, known.index, operand)
        return list(found.values())

    def counting(self, group: ChannelGroup, over: str) -> list[Member]:
        """Return the members that units are measured by."""
        makers = list(group.members.makers) if over == 'producers' and not self.ranks else []
        if makers:
            return makers
        members = self.members(group)
        makers = [m for m in members if m.role == 'out' and self._rank(m) > 1]
        return (over == 'producers' and makers) or _parameters(self.graph, members, self.ranks)

    def _rank(self, member: Member) -> int:
        known = self.ranks.get(member.param)
        return self.graph.parameter(member.param).dim() if known is None else known

    def _operand(self, weight: str) -> str:
        """Return what a weight is used as, which is what its layer's bias is used as."""
        path = weight.rpartition('.')[0]
        bias = self.graph.operands.get(f'{path}.bias' if path else 'bias', 'parameter')
        return f'{bias.removesuffix(".bias")}.weight'


def _parameters(
    graph: ChannelGraph, members: list[Member], computed: Container[str] = ()
) -> list[Member]:
    """Return the members that are parameters or computed; failing these, all."""
    return [
        member
        for member in members
        if member.param in computed or isinstance(graph.parameter(member.param), nn.Parameter)
    ] or members


def gates(graph: ChannelGraph) -> dict[str, list[list[Member]]]:
    """Return group -> for each gate on its channels the weights that it would multiply.

    A gate is a factor of 1 on each channel of a layer's output. Each norm with a scale has one;
    in a group without such a norm each layer that makes its channels has. The output is linear in
    the weights (scale and bias, or weight and bias), so the gradient of the gate is the sum of
    their values times their gradients. The members are those of :func:`measured`.
    """
    makers = measured(graph, 'producers')
    found = {}
    for name, members in measured(graph, 'group').items():
        leads = [m for m in members if m.operand in _SCALES] or makers[name]
        found[name] = [[lead, *(m for m in members if _is_bias(m, lead))] for lead in leads]
    return found


def _is_bias(member: Member, lead: Member) -> bool:
    kind = lead.operand.rpartition('.')[0]
    return (
        member.operand == f'{kind}.bias'
        and member.module == lead.module.partition('.parametrizations.')[0]
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
        measure: of a member, as :func:`measured` returns them -> ``(units,)``.

    Returns:
        For the producers one row for each, ``(layers, units)``; for the group their sum,
        ``(units,)``. A weight that belongs to a unit in two dimensions counts in both.
    """
    return stacked(measured(graph, over), over, measure)


def stacked(
    members: Mapping[str, Sequence[Member]], over: str, measure: Callable[[Member], Tensor]
) -> dict[str, Tensor]:
    """Return what :func:`score_units` does of the members that :func:`measured` has returned."""
    scores = {}
    for name, own in members.items():
        layers = torch.stack([measure(member).cpu() for member in own])
        scores[name] = layers if over == 'producers' else layers.sum(dim=0)
    return scores
