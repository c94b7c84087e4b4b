"""Units: the weights of each unit of a group, and sums over them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from easypruner.graph import ChannelGraph, ChannelGroup, Member
from easypruner.graph.recording.inventory import find_module
from easypruner.graph.recording.parametrized import computed_value, computed_weights, weight_norms

OVER = ('producers', 'group')
"""Which weights of a group are used: those that produce its channels, or all its parameters."""

_SCALES = frozenset(f'{n}.weight' for n in ('batch_norm', 'group_norm', 'layer_norm', 'rms_norm'))


def pushed_members(graph: ChannelGraph, group: ChannelGroup, over: str) -> list[Member]:
    """Return the members of a group that a regularizer pushes.

    Buffers, such as running statistics, are not pushed. A group in which no weight produces
    channels has all its parameters pushed; a group without parameters, all its members. Of a
    weight under weight norm, the length is pushed, and the direction only in dimensions that have
    no length.

    Args:
        graph: the channel graph of the model.
        group: a group of the graph.
        over: a name of :data:`OVER`.
    """
    computed = _ComputedWeights.of(graph, [group], partly=True)
    chosen = computed.members_over(group, over)
    if not computed.ranks:
        return chosen
    used = {(member.param, member.dim) for member in chosen}
    directions = {(n.direction, n.dim) for n in weight_norms(dict(graph.model.named_modules()))}
    members = [
        member
        for member in group.members
        if (member.param, member.dim) not in directions
        and not used.isdisjoint(
            computed.weights.get((member.param, member.dim), [(member.param, member.dim)])
        )
    ]
    return _parameters(graph, members)


def scored_members(graph: ChannelGraph, over: str) -> dict[str, list[Member]]:
    """Return group -> the members whose values score its units; see :func:`values_of`.

    ``over`` selects members as in :func:`pushed_members`. But a weight that is computed from other
    tensors (weight norm, pruning masks of torch) is scored itself, because a single one of these
    tensors says nothing about a unit.

    Args:
        graph: the channel graph of the model.
        over: a name of :data:`OVER`.
    """
    computed = _ComputedWeights.of(graph, graph.groups.values())
    return {name: computed.members_over(group, over) for name, group in graph.groups.items()}


def used_members(graph: ChannelGraph) -> dict[str, list[Member]]:
    """Return group -> its members, with computed weights instead of the tensors they come from."""
    computed = _ComputedWeights.of(graph, graph.groups.values(), partly=True)
    return {name: computed.members(group) for name, group in graph.groups.items()}


def values_of(graph: ChannelGraph, member: Member) -> Tensor:
    """Return the values of a member of :func:`scored_members`, without a gradient."""
    path, _, local = member.param.rpartition('.')
    layer = find_module(graph.model, path)
    own: Tensor | None = layer._parameters.get(local)
    if own is None:
        own = layer._buffers.get(local)
    return computed_value(layer, local) if own is None else own.detach()


@dataclass(frozen=True)
class _ComputedWeights:
    """The weights that are computed from other tensors, their sources.

    Attributes:
        graph: the channel graph of the model.
        ranks: computed weight -> its number of dimensions.
        weights: (source, dimension) -> (computed weight, its dimension) for each weight that is
            computed from this source.
    """

    graph: ChannelGraph
    ranks: Mapping[str, int]
    weights: Mapping[tuple[str, int], Sequence[tuple[str, int]]]

    @classmethod
    def of(
        cls, graph: ChannelGraph, groups: Collection[ChannelGroup], partly: bool = False
    ) -> _ComputedWeights:
        """Find the computed weights of groups.

        If the channels of a group lie between the sources, as in a product of two factors, each
        source is a weight of its own. With ``partly``, the weight still replaces its sources in
        the other groups.
        """
        computed = computed_weights(graph.model)
        sources = {name for weight in computed.values() for name in weight.sources}
        keys = {
            (member.param, member.dim)
            for group in (groups if computed else ())
            for member in group.members
            if member.param in sources
        }
        ranks: dict[str, int] = {}
        weights: dict[tuple[str, int], list[tuple[str, int]]] = {}
        for name, weight in computed.items():
            own = [(key, weight.dim_of(*key)) for key in keys if key[0] in weight.sources]
            found = [(key, dim) for key, dim in own if dim is not None]
            if partly or len(found) == len(own):
                ranks[name] = weight.value().dim()
                for key, dim in found:
                    weights.setdefault(key, []).append((name, dim))
        return cls(graph, ranks, weights)

    def members(self, group: ChannelGroup) -> list[Member]:
        """Return the members of a group, with computed weights in place of their sources."""
        found: dict[tuple[str, int], Member] = {}
        for member in group.members:
            weights = self.weights.get((member.param, member.dim))
            for name, dim in weights or [(member.param, member.dim)]:
                # If one of several sources reads the channels, so does the weight.
                known = found.get((name, dim), member)
                role = member.role if known.role == 'out' else 'in'
                operand = self._operand(name) if weights else member.operand
                found[name, dim] = Member(name, dim, role, known.index, operand)
        return list(found.values())

    def members_over(self, group: ChannelGroup, over: str) -> list[Member]:
        """Return the members of a group that a name of :data:`OVER` selects."""
        producers = list(group.makers) if over == 'producers' and not self.ranks else []
        if producers:
            return producers
        members = self.members(group)
        producers = [m for m in members if m.role == 'out' and self._rank(m) > 1]
        return (over == 'producers' and producers) or _parameters(self.graph, members, self.ranks)

    def _rank(self, member: Member) -> int:
        known = self.ranks.get(member.param)
        return self.graph.parameter(member.param).dim() if known is None else known

    def _operand(self, weight: str) -> str:
        """Return the operand of a computed weight, derived from that of its layer's bias."""
        path = weight.rpartition('.')[0]
        bias = self.graph.operands.get(f'{path}.bias' if path else 'bias', 'parameter')
        return f'{bias.removesuffix(".bias")}.weight'


def _parameters(
    graph: ChannelGraph, members: list[Member], computed: Container[str] = ()
) -> list[Member]:
    """Return the members that are parameters or computed weights; all if there are none."""
    return [
        member
        for member in members
        if member.param in computed or isinstance(graph.parameter(member.param), nn.Parameter)
    ] or members


def gates_of(graph: ChannelGraph) -> dict[str, list[list[Member]]]:
    """Return group -> for each gate on its channels, the weights that the gate multiplies.

    A gate is a factor of 1 on each channel of a layer's output. Each norm with a scale has a gate.
    In a group without such a norm, each layer that produces the channels has one. The output is
    linear in the weights (scale and bias, or weight and bias). The gradient of the gate is
    therefore the sum of their values times their gradients. The members are those of
    :func:`scored_members`.
    """
    producers = scored_members(graph, 'producers')
    found = {}
    for name, members in scored_members(graph, 'group').items():
        leads = [m for m in members if m.operand in _SCALES] or producers[name]
        found[name] = [[lead, *(m for m in members if _is_bias(m, lead))] for lead in leads]
    return found


def _is_bias(member: Member, lead: Member) -> bool:
    """Tell whether a member is the bias that belongs to a weight or scale."""
    kind = lead.operand.rpartition('.')[0]
    return (
        member.operand == f'{kind}.bias'
        and member.module == lead.module.partition('.parametrizations.')[0]
        and member.param != lead.param
    )


def widen(values: Tensor) -> Tensor:
    """Convert half precision to single, so that sums and squares do not overflow."""
    return values if values.dtype in (torch.float32, torch.float64) else values.float()


def unit_sums(values: Tensor, member: Member) -> Tensor:
    """Add up the values of each unit in one dimension of a tensor.

    Args:
        values: values in the shape of the member's parameter.
        member: a member of a group.

    Returns:
        ``(units,)``, on the device of ``values``.
    """
    others = [dim for dim in range(values.dim()) if dim != member.dim]
    return sums_of_units(values.sum(dim=others) if others else values, member)


def sums_of_units(values: Tensor, member: Member) -> Tensor:
    """Add up the values of each unit of the indices in a dimension, ``(units,)``."""
    index = member.index if values.is_cpu else member.index.to(values.device)
    if index.shape[1] == 1:
        return values.index_select(0, index.flatten())
    return values[index].sum(dim=1)


def unit_squares(graph: ChannelGraph, member: Member) -> Tensor:
    """Return the sum of squares of each unit of a member of :func:`scored_members`."""
    return unit_sums(widen(values_of(graph, member)).square(), member)


def unit_rows(values: Tensor, member: Member) -> Tensor:
    """Return the elements of each unit in one dimension of a tensor, ``(units, elements)``."""
    moved = values.movedim(member.dim, 0).flatten(1) if values.dim() > 1 else values[:, None]
    return moved[member.index.to(moved.device)].flatten(1)


def score_units(
    graph: ChannelGraph, over: str, measure: Callable[[Member], Tensor]
) -> dict[str, Tensor]:
    """Return group -> scores of its units, from a measure of their weights.

    Args:
        graph: the channel graph of the model.
        over: a name of :data:`OVER`.
        measure: a function of a member of :func:`scored_members` -> ``(units,)``.

    Returns:
        Over producers, a row for each of them, ``(layers, units)``; over the group, the sum over
        all members, ``(units,)``. A weight that belongs to a unit in two dimensions counts in both.
    """
    return score_members(scored_members(graph, over), over, measure)


def score_members(
    members: Mapping[str, Sequence[Member]], over: str, measure: Callable[[Member], Tensor]
) -> dict[str, Tensor]:
    """Return the result of :func:`score_units` for members that :func:`scored_members` returned."""
    scores = {}
    for name, own in members.items():
        measures = [measure(member).cpu() for member in own]
        layers = measures[0][None] if len(own) == 1 else torch.stack(measures)
        scores[name] = layers if over == 'producers' else layers.sum(dim=0)
    return scores
