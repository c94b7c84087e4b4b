"""Norm scales: which scales of a network a regularizer pushes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer

from easypruner.base.checks import check_name
from easypruner.errors import ConfigError, EasyPrunerError, nearest
from easypruner.graph import ChannelGraph, ChannelGroup, Member
from easypruner.strategies.measures.units import pushed_members
from easypruner.strategies.regularizers.pushing import (
    IndexValues,
    PushedRow,
    ensure_gradients,
    group_values,
)
from easypruner.strategies.regularizers.schedule import Progress
from easypruner.strategies.regularizers.selected import SelectedScales
from easypruner.strategies.regularizers.stepping import StepSizes, move_to_zero

SCALES = {
    'batch_norm': 'batch_norm',
    'instance_norm': 'batch_norm',
    'group_norm': 'group_norm',
    'layer_norm': 'layer_norm',
}
"""Kind of norm -> the operation that its parameters are operands of.

To torch, an instance norm is a batch norm over single images, so both kinds select both.
"""

WITHOUT_SCALES = ('error', 'weights', 'skip')
"""For groups without a norm scale: raise an error, push their weights, or push nothing."""


@dataclass(frozen=True)
class ScaleKinds:
    """The kinds of norm whose scales a regularizer pushes.

    Attributes:
        names: names of :data:`SCALES`.
        owner: the name of the regularizer, for messages.
    """

    names: tuple[str, ...]
    owner: str

    @classmethod
    def of(cls, scales: str | Sequence[str], owner: str) -> ScaleKinds:
        """Check the argument ``scales`` of a regularizer.

        Args:
            scales: a name of :data:`SCALES`, or several.
            owner: the name of the regularizer, for messages.

        Raises:
            ConfigError: there is no name, or an unknown one.
        """
        names = (scales,) if isinstance(scales, str) else tuple(scales)
        for name in names:
            if name not in SCALES:
                raise ConfigError(
                    f'scales={scales!r} of {owner} has the unknown name {name!r}; '
                    f'{nearest(str(name), SCALES)}'
                )
        if not names:
            raise ConfigError(
                f'scales={scales!r} of {owner}; expected one or more of {", ".join(SCALES)}'
            )
        return cls(names, owner)

    def operands(self, *parts: str) -> frozenset[str]:
        """Return the operands of these norms that are a ``'weight'`` or a ``'bias'``."""
        return frozenset(f'{SCALES[name]}.{part}' for name in self.names for part in parts)

    def nothing_to_push(self, graph: ChannelGraph) -> EasyPrunerError:
        """Return the error for a network in which there is nothing to push."""
        return EasyPrunerError(
            f'{self.owner} pushes norm scales ({", ".join(self.names)}) to zero, but there are '
            f'none to push in this {type(graph.model).__name__}: it does not have such a norm with '
            'a trainable scale, or the masks or group_strengths exclude all of them'
        )

    def refuse_lacking(self, groups: Sequence[str]) -> None:
        """Raise EasyPrunerError if there are groups without a scale."""
        if groups:
            more = f' and {len(groups) - 3} more' if len(groups) > 3 else ''
            raise EasyPrunerError(
                f'{self.owner} pushes norm scales ({", ".join(self.names)}), but the groups '
                f'{", ".join(map(repr, groups[:3]))}{more}, of which it should push channels, do '
                "not have a trainable one; without_scales='weights' pushes the weights that "
                "produce these channels instead, and without_scales='skip' skips these groups"
            )

    def row(self, graph: ChannelGraph, factors: Mapping[str, float]) -> FlatScales:
        """Line up all trainable scales of these kinds.

        Args:
            graph: the channel graph of the model.
            factors: group -> factor of the strength; scales outside of groups have the factor 1.

        Raises:
            EasyPrunerError: there are no such scales, or all have the factor 0.
        """
        names = operands_named(graph, self.operands('weight'))
        if not names:
            raise self.nothing_to_push(graph)
        own = group_values(graph, factors)
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
        scales = FlatScales(names, tensors, row.to(first), layer.to(first.device))
        if not bool(scales.factors.any()):
            raise self.nothing_to_push(graph)
        return scales


def operands_named(graph: ChannelGraph, operands: Collection[str]) -> list[str]:
    """Return the names of the trainable parameters that are used as one of ``operands``."""
    return [
        name
        for name, operand in graph.operands.items()
        if operand in operands and graph.parameter(name).requires_grad
    ]


class ScaleSelection:
    """Selects the norm scales that a regularizer pushes, or other parameters instead.

    Args:
        scales: a name of :data:`SCALES`, or several.
        without_scales: a name of :data:`WITHOUT_SCALES`.
        owner: the name of the regularizer, for messages.
        biases: whether the biases of the norms are pushed as well, and those of layers whose
            weights are pushed instead.

    Raises:
        ConfigError: a name is unknown, or ``scales`` is empty.
    """

    def __init__(
        self, scales: str | Sequence[str], without_scales: str, owner: str, biases: bool = False
    ) -> None:
        self.kinds = ScaleKinds.of(scales, owner)
        self._without_scales = check_name(without_scales, 'without_scales', owner, WITHOUT_SCALES)
        self._biases = biases

    def select(
        self, graph: ChannelGraph, pushed: IndexValues, factors: Mapping[str, float]
    ) -> SelectedScales:
        """Select parameters.

        Args:
            graph: the channel graph of the model.
            pushed: (parameter, dimension) -> bool tensor, True = should be pushed; empty if
                nothing should be pushed.
            factors: group -> factor of the strength; any other group has the factor 1.

        Raises:
            EasyPrunerError: something should be pushed, but no parameter can be selected.
        """
        if not pushed:
            return SelectedScales()
        selected = self._selected(graph, pushed, factors)
        if not selected.tensors:
            self.kinds.refuse_lacking(selected.lacking)
            raise self.kinds.nothing_to_push(graph)
        return selected

    def _selected(
        self, graph: ChannelGraph, pushed: IndexValues, factors: Mapping[str, float]
    ) -> SelectedScales:
        operands = self.kinds.operands('weight', *(['bias'] if self._biases else []))
        own = group_values(graph, factors)
        wanted = [(name, 0) for name in operands_named(graph, operands) if (name, 0) in pushed]
        lacking: list[str] = []
        # Looking at all members of all groups takes time, and 'skip' does not need it.
        if self._without_scales != 'skip':
            lacking = [n for n, g in graph.groups.items() if self._lacks(graph, g, pushed, own)]
        if self._without_scales == 'weights':
            wanted += [
                (member.param, member.dim)
                for name in lacking
                for member in self._instead_of_scales(graph, graph.groups[name])
                if graph.parameter(member.param).requires_grad
            ]
            lacking = []
        weights: dict[str, Tensor] = {}
        for name, dim in dict.fromkeys(wanted):
            values = pushed[name, dim] * own.get((name, dim), 1.0)
            weight = _broadcast(graph.parameter(name), dim, values)
            weights[name] = torch.maximum(weights[name], weight) if name in weights else weight
        weights = {name: weight for name, weight in weights.items() if bool(weight.any())}
        tensors = [graph.parameter(name) for name in weights]
        return SelectedScales(list(weights), tensors, list(weights.values()), tuple(lacking))

    def _instead_of_scales(self, graph: ChannelGraph, group: ChannelGroup) -> list[Member]:
        members = pushed_members(graph, group, 'producers')
        if self._biases:
            biases = [m for m in group.members if (m.operand or '').endswith('.bias')]
            members += [member for member in biases if member not in members]
        return members

    def _lacks(
        self, graph: ChannelGraph, group: ChannelGroup, pushed: IndexValues, own: IndexValues
    ) -> bool:
        """Tell whether channels of a group should be pushed, but it has no trainable scale."""
        scales = self.kinds.operands('weight')
        if any(
            member.operand in scales and graph.parameter(member.param).requires_grad
            for member in group.members
        ):
            return False
        return any(
            bool((pushed[key] * own.get(key, 1.0))[member.index].any())
            for member in group.producers
            if (key := (member.param, member.dim)) in pushed
        )


def _broadcast(parameter: Tensor, dim: int, values: Tensor) -> Tensor:
    """Return the values of a dimension's indices in a shape that broadcasts to the parameter."""
    shape = [-1 if other == dim else 1 for other in range(parameter.dim())]
    return values.to(device=parameter.device, dtype=parameter.dtype).view(shape)


@dataclass(frozen=True)
class FlatScales(PushedRow):
    """All scales of a network in one row.

    Attributes:
        factors: for each scale of the row, the factor of the strength.
        layer: for each scale of the row, the number of its parameter.
    """

    factors: Tensor
    layer: Tensor

    def row(self) -> Tensor:
        """Return the scales in one row, on the device of the first."""
        return torch.cat([tensor.to(self.factors) for tensor in self.tensors])

    def add(self, pushes: Tensor) -> None:
        """Add a row to the gradients of the scales."""
        parts = torch.split(pushes, [tensor.numel() for tensor in self.tensors])
        own = [part.to(tensor) for part, tensor in zip(parts, self.tensors, strict=True)]
        torch._foreach_add_(ensure_gradients(self.tensors), own)

    def move(self, pushes: Tensor, optimizer: Optimizer, progress: Progress) -> None:
        """Move the scales by a row of pushes, and stop at zero.

        Args:
            pushes: the distances at a step size of 1.
            optimizer: the optimizer that trains the scales.
            progress: the progress of the training.
        """
        sizes = StepSizes(optimizer, self.tensors)(progress)
        parts = torch.split(pushes, [tensor.numel() for tensor in self.tensors])
        for tensor, part, size in zip(self.tensors, parts, sizes, strict=True):
            move_to_zero(tensor, size * part.to(tensor), optimizer)
