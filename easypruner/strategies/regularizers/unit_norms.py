"""Unit norms: the norms of what belongs to each unit, and gradients that shrink whole units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from easypruner.graph import ChannelGraph, ChannelGroup, Member
from easypruner.strategies.measures.units import weights_of
from easypruner.strategies.regularizers.pushing import gradients


@dataclass(frozen=True)
class UnitNorms:
    """The weights of all units of a network, in a row of units.

    Attributes:
        names: of the parameters; one is named for each of its dimensions that has units.
        tensors: the parameters.
        dims: the dimension of each that has units.
        unit: one for each index of all these dimensions in a row: the number of its unit, or
            :attr:`units` for those of none.
        family: of each unit, the number of the units it is compared with: its group, or its
            group's layer.
        families: how many there are.
        factors: of each unit, of the strength.
    """

    names: list[str]
    tensors: list[Tensor]
    dims: list[int]
    unit: Tensor
    family: Tensor
    families: int
    factors: Tensor

    @classmethod
    def of(
        cls,
        graph: ChannelGraph,
        over: str,
        factors: Mapping[str, float],
        pushed: Mapping[str, Tensor] | None = None,
        by_layer: bool = False,
    ) -> UnitNorms | None:
        """Line up the units; None if no weight of theirs trains.

        Args:
            graph: of the model.
            over: which weights count: a name of :data:`easypruner.strategies.measures.units.OVER`.
            factors: group -> factor of the strength.
            pushed: group -> bool tensor ``(units,)``, False = the factor is 0; nothing is pushed
                of a group that is not named. None pushes all.
            by_layer: whether each weight of a group has units of its own, rather than all in one.
        """
        rows: dict[tuple[str, int], Tensor] = {}
        sizes: list[int] = []
        unit_factors: list[Tensor] = []
        for name, group in graph.groups.items():
            members = [
                member
                for member in weights_of(graph, group, over)
                if graph.parameter(member.param).requires_grad
            ]
            for family in [[member] for member in members] if by_layer else [members]:
                first = sum(sizes)
                for member in family:
                    _number(rows, graph, member, first)
                if family:
                    sizes.append(group.size)
                    unit_factors.append(_factors(group, factors[name], pushed))
        if not rows:
            return None
        tensors = [graph.parameter(name) for name, _ in rows]
        device, units = tensors[0].device, sum(sizes)
        row = torch.cat(list(rows.values()))
        family_of = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
        return cls(
            names=[name for name, _ in rows],
            tensors=tensors,
            dims=[dim for _, dim in rows],
            unit=torch.where(row < 0, units, row).to(device),
            family=family_of.to(device),
            families=len(sizes),
            factors=torch.cat(unit_factors).to(tensors[0]),
        )

    @property
    def units(self) -> int:
        """How many units there are."""
        return len(self.factors)

    def squares(self) -> Tensor:
        """Return the sum of squares of each unit, ``(units,)``. It has a gradient."""
        along = [
            _along(t, dim).to(self.factors) for t, dim in zip(self.tensors, self.dims, strict=True)
        ]
        sums = self.factors.new_zeros(self.units + 1)
        return sums.index_add(0, self.unit, torch.cat(along))[:-1]

    def norms(self) -> Tensor:
        """Return the L2 norm of each unit, ``(units,)``; its slope at zero is taken to be 0."""
        squares = self.squares()
        return torch.where(squares > 0, squares, 1).sqrt() * (squares > 0)

    def add(self, shrink: Tensor) -> None:
        """Add to the gradient of each weight its value times a factor of its unit.

        Args:
            shrink: ``(units,)``. What belongs to several units gets the sum.
        """
        every = torch.cat([shrink, shrink.new_zeros(1)]).index_select(0, self.unit)
        parts = torch.split(
            every, [t.shape[dim] for t, dim in zip(self.tensors, self.dims, strict=True)]
        )
        factors = [
            _spread(part.to(t), t, dim)
            for part, t, dim in zip(parts, self.tensors, self.dims, strict=True)
        ]
        torch._foreach_addcmul_(gradients(self.tensors), self.tensors, factors)


def _factors(group: ChannelGroup, factor: float, pushed: Mapping[str, Tensor] | None) -> Tensor:
    every = torch.full((group.size,), factor, dtype=torch.float64)
    if pushed is None:
        return every
    return every * pushed[group.name] if group.name in pushed else every * 0


def _number(
    rows: dict[tuple[str, int], Tensor], graph: ChannelGraph, member: Member, first: int
) -> None:
    """Write the numbers of a member's units, from ``first`` on, at its indices."""
    size = graph.parameter(member.param).shape[member.dim]
    row = rows.setdefault((member.param, member.dim), torch.full((size,), -1, dtype=torch.int64))
    row[member.index] = first + torch.arange(len(member.index))[:, None]


def _along(tensor: Tensor, dim: int) -> Tensor:
    """Return the sum of squares at each index of a dimension."""
    if dim == 1 and tensor.dim() > 1 and tensor.is_contiguous():
        # Over whole rows first, then within what is left: other ways are several times as slow.
        within = tensor.flatten(1).square().sum(dim=0)
        return within.view(tensor.shape[1], -1).sum(dim=1)
    others = [d for d in range(tensor.dim()) if d != dim]
    return torch.linalg.vector_norm(tensor, dim=others).square() if others else tensor.square()


def _spread(values: Tensor, tensor: Tensor, dim: int) -> Tensor:
    """Return values for the indices of a dimension as a tensor that broadcasts to the whole."""
    rows = values.view([-1 if d == dim else 1 for d in range(tensor.dim())])
    if dim == 0:
        return rows
    # Written out to the last dimension, so that the inner loop runs over whole rows.
    return rows.expand([*rows.shape[:dim], *tensor.shape[dim:]]).contiguous()
