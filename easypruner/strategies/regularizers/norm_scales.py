"""Norm scales: which of a network's a regularizer pushes, and what it does where there are none."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from easypruner.errors import ConfigError, EasyPrunerError, nearest
from easypruner.graph import ChannelGraph, ChannelGroup
from easypruner.strategies.measures.units import weights_of
from easypruner.strategies.regularizers.pushing import Places, gradients, group_places

SCALES = {
    'batch_norm': 'batch_norm',
    'instance_norm': 'batch_norm',
    'group_norm': 'group_norm',
    'layer_norm': 'layer_norm',
}
"""Kind of norm -> the operation that its parameters are operands of; to torch, instance norm is a
batch norm over single images, and so the two go together."""

WITHOUT_SCALES = ('error', 'weights', 'skip')
"""What becomes of groups without a norm scale: an error, their weights are pushed, nothing."""


def norms_of(scales: str | Sequence[str], owner: str) -> frozenset[str]:
    """Return the operations that the kinds of norm in ``scales`` are.

    Args:
        scales: names of :data:`SCALES`.
        owner: whose argument it is, for the message.

    Raises:
        ConfigError: none, or one that is not known.
    """
    kinds = (scales,) if isinstance(scales, str) else tuple(scales)
    for kind in kinds:
        if kind not in SCALES:
            raise ConfigError(f'scales of {owner} name {kind!r}; {nearest(str(kind), SCALES)}')
    if not kinds:
        raise ConfigError(f'scales of {owner} are empty; names: {", ".join(SCALES)}')
    return frozenset(SCALES[kind] for kind in kinds)


def operands_named(graph: ChannelGraph, operands: Collection[str]) -> list[str]:
    """Return the parameters that are used as one of ``operands`` and train."""
    return [
        name
        for name, operand in graph.operands.items()
        if operand in operands and graph.parameter(name).requires_grad
    ]


def scale_names(graph: ChannelGraph, norms: Collection[str]) -> list[str]:
    """Return the scales of the norms that are operations in ``norms`` and train."""
    return operands_named(graph, {f'{norm}.weight' for norm in norms})


@dataclass(frozen=True)
class Chosen:
    """Parameters that are pushed, and how much.

    Attributes:
        names: of the parameters.
        tensors: the parameters.
        weights: of each, the factor of the strength at every entry, 0 where nothing is pushed; it
            broadcasts to the parameter.
        lacking: groups of which something should be pushed that have no scale.
    """

    names: list[str] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    weights: list[Tensor] = field(default_factory=list)
    lacking: tuple[str, ...] = ()


@dataclass(frozen=True)
class Choice:
    """The rule by which parameters are chosen.

    Attributes:
        norms: operations whose scales are pushed.
        without_scales: a name of :data:`WITHOUT_SCALES`.
        biases: whether the norms' biases are pushed as well.
    """

    norms: frozenset[str]
    without_scales: str
    biases: bool = False

    def of(
        self, graph: ChannelGraph, places: Places, factors: Mapping[str, float] | None = None
    ) -> Chosen:
        """Choose among what should be pushed.

        Args:
            graph: of the model.
            places: True = should be pushed.
            factors: group -> factor of the strength; 1 for those that are not named.
        """
        operands = {f'{norm}.weight' for norm in self.norms}
        if self.biases:
            operands |= {f'{norm}.bias' for norm in self.norms}
        own = group_places(graph, factors or {})
        wanted = [(name, 0) for name in operands_named(graph, operands) if (name, 0) in places]
        lacking: list[str] = []
        # To look at every member of every group takes time, and a choice to skip needs none.
        if self.without_scales != 'skip':
            lacking = [n for n, g in graph.groups.items() if self._lacks(graph, g, places, own)]
        if self.without_scales == 'weights':
            wanted += [
                (member.param, member.dim)
                for name in lacking
                for member in weights_of(graph, graph.groups[name], 'producers')
                if graph.parameter(member.param).requires_grad
            ]
            lacking = []
        weights: dict[str, Tensor] = {}
        for place in dict.fromkeys(wanted):
            weight = _broadcast(graph, place, places[place] * own.get(place, 1.0))
            name = place[0]
            weights[name] = torch.maximum(weights[name], weight) if name in weights else weight
        pushed = {name: weight for name, weight in weights.items() if bool(weight.any())}
        tensors = [graph.parameter(name) for name in pushed]
        return Chosen(list(pushed), tensors, list(pushed.values()), tuple(lacking))

    def _lacks(self, graph: ChannelGraph, group: ChannelGroup, places: Places, own: Places) -> bool:
        scales = {f'{norm}.weight' for norm in self.norms}
        if any(
            member.operand in scales and graph.parameter(member.param).requires_grad
            for member in group.members
        ):
            return False
        return any(
            bool((places[place] * own.get(place, 1.0))[member.index].any())
            for member in group.producers
            if (place := (member.param, member.dim)) in places
        )


def refuse_lacking(groups: Sequence[str], owner: str, scales: Iterable[str]) -> None:
    """Raise EasyPrunerError if there are groups that lack a scale.

    Args:
        groups: their names.
        owner: the regularizer that would push them, for the message.
        scales: the kinds of norm that it pushes the scales of.
    """
    if groups:
        more = f' and {len(groups) - 3} more' if len(groups) > 3 else ''
        raise EasyPrunerError(
            f'{owner} pushes scales ({", ".join(scales)}), but there is none that trains in the '
            f'groups {", ".join(map(repr, groups[:3]))}{more}, of which channels are to be '
            "pushed; without_scales='weights' pushes the weights that make these channels "
            "instead, and without_scales='skip' leaves them alone"
        )


def nothing_to_push(graph: ChannelGraph, owner: str, scales: Iterable[str]) -> EasyPrunerError:
    """Return the error of a regularizer that finds nothing to push."""
    return EasyPrunerError(
        f'{owner} pushes scales ({", ".join(scales)}) to zero, but none are to be pushed in this '
        f'{type(graph.model).__name__}: it has no such norm with a scale that trains, or the masks '
        'or group_strengths leave out all that have'
    )


def _broadcast(graph: ChannelGraph, place: tuple[str, int], values: Tensor) -> Tensor:
    """Return one value for each index of a dimension as a tensor that broadcasts to the whole."""
    tensor = graph.parameter(place[0])
    shape = [-1 if dim == place[1] else 1 for dim in range(tensor.dim())]
    return values.to(device=tensor.device, dtype=tensor.dtype).view(shape)


@dataclass(frozen=True)
class FlatScales:
    """All scales of a network in a row.

    Attributes:
        names: of the parameters.
        tensors: the parameters.
        factors: of the strength, for each scale in the row.
        layer: of each scale in the row, the number of its parameter.
    """

    names: list[str]
    tensors: list[Tensor]
    factors: Tensor
    layer: Tensor

    @classmethod
    def of(
        cls, graph: ChannelGraph, norms: Collection[str], factors: Mapping[str, float]
    ) -> FlatScales | None:
        """Line up the scales that train; None if there are none.

        Args:
            graph: of the model.
            norms: operations whose scales they are.
            factors: group -> factor of the strength; scales outside of groups have 1.
        """
        names = scale_names(graph, norms)
        if not names:
            return None
        own = group_places(graph, factors)
        tensors = [graph.parameter(name) for name in names]
        sizes = torch.tensor([tensor.numel() for tensor in tensors])
        row = torch.cat(
            [
                own.get((name, 0), torch.ones(tensor.numel(), dtype=torch.float64))
                for name, tensor in zip(names, tensors, strict=True)
            ]
        )
        layer = torch.repeat_interleave(torch.arange(len(names)), sizes)
        first = tensors[0]
        return cls(names, tensors, row.to(first), layer.to(first.device))

    def row(self) -> Tensor:
        """Return the scales in a row, where the first of them is."""
        return torch.cat([tensor.to(self.factors) for tensor in self.tensors])

    def add(self, pushes: Tensor) -> None:
        """Add a row to the gradients."""
        parts = torch.split(pushes, [tensor.numel() for tensor in self.tensors])
        own = [part.to(tensor) for part, tensor in zip(parts, self.tensors, strict=True)]
        torch._foreach_add_(gradients(self.tensors), own)
