"""Unit norms: the norm of each unit's weights, and gradients that shrink whole units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.optim import Optimizer

from easypruner.errors import EasyPrunerError
from easypruner.graph import ChannelGraph, ChannelGroup, Member
from easypruner.strategies.measures.units import pushed_members
from easypruner.strategies.regularizers.pushing import PushedRow, ensure_gradients
from easypruner.strategies.regularizers.schedule import Progress
from easypruner.strategies.regularizers.stepping import by_size, with_states
from easypruner.strategies.regularizers.weight_rows import (
    square_sums,
    square_sums_of,
    with_factors,
)


@dataclass(frozen=True)
class UnitNorms(PushedRow):
    """The weights of all units of a network, with the units in one row.

    Attributes:
        names: the names of the parameters; one occurs once for each of its dimensions with units.
        dims: for each parameter, its dimension with units.
        unit: for each index of these dimensions, in one row, the number of its unit;
            :attr:`units` for an index without a unit.
        family: for each unit, the number of its family. The units of a family are compared with
            each other; they are those of a group, or of one layer of a group.
        groups: for each family, the name of its group.
        factors: for each unit, the factor of the strength.
    """

    dims: list[int]
    unit: Tensor
    family: Tensor
    groups: list[str]
    factors: Tensor

    @classmethod
    def of(
        cls,
        graph: ChannelGraph,
        over: str,
        factors: Mapping[str, float],
        owner: str,
        pushed: Mapping[str, Tensor] | None = None,
        by_layer: bool = False,
    ) -> UnitNorms:
        """Line up the units.

        Args:
            graph: the channel graph of the model.
            over: which weights are used: a name of
                :data:`easypruner.strategies.measures.units.OVER`.
            factors: group -> factor of the strength.
            owner: the name of the regularizer, for the message.
            pushed: group -> bool tensor ``(units,)``, False = the factor is 0. Any other group has
                the factor 0. None pushes all units.
            by_layer: whether each layer of a group has units of its own.

        Raises:
            EasyPrunerError: no unit has a trainable weight, or units should be pushed but all have
                the factor 0.
        """
        rows: dict[tuple[str, int], Tensor] = {}
        sizes: list[int] = []
        groups: list[str] = []
        unit_factors: list[Tensor] = []
        for name, group in graph.groups.items():
            members = [
                member
                for member in pushed_members(graph, group, over)
                if graph.parameter(member.param).requires_grad
            ]
            for family in [[member] for member in members] if by_layer else [members]:
                first = sum(sizes)
                for member in family:
                    _write_numbers(rows, graph, member, first)
                if family:
                    sizes.append(group.size)
                    groups.append(name)
                    unit_factors.append(_factors(group, factors[name], pushed))
        requested = pushed is None or any(bool(mask.any()) for mask in pushed.values())
        if not rows or (requested and not bool(torch.cat(unit_factors).any())):
            raise EasyPrunerError(
                f'{owner} pushes the weights of units to zero, but there are none to push in this '
                f'{type(graph.model).__name__}: it does not have a prunable channel with a '
                'trainable weight, or the masks or group_strengths exclude all of them'
            )
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
            groups=groups,
            factors=torch.cat(unit_factors).to(tensors[0]),
        )

    @property
    def families(self) -> int:
        """The number of families."""
        return len(self.groups)

    @property
    def units(self) -> int:
        """The number of units."""
        return len(self.factors)

    @cached_property
    def _weights(self) -> list[tuple[Tensor, list[int], list[int]]]:
        """Each parameter, its dimensions with units, and their positions in the lists."""
        found: dict[int, tuple[Tensor, list[int], list[int]]] = {}
        for position, (tensor, dim) in enumerate(zip(self.tensors, self.dims, strict=True)):
            _, dims, positions = found.setdefault(id(tensor), (tensor, [], []))
            dims.append(dim)
            positions.append(position)
        return list(found.values())

    def squares(self) -> Tensor:
        """Return the sum of squares of each unit, ``(units,)``; with a gradient if enabled."""
        if torch.is_grad_enabled():
            along = list(map(square_sums_of, self.tensors, self.dims))
        else:
            along = self._squares_at_once()
        row = torch.cat([sums.to(self.factors) for sums in along])
        return self.factors.new_zeros(self.units + 1).index_add(0, self.unit, row)[:-1]

    def _squares_at_once(self) -> list[Tensor]:
        """Return the sums of squares along the dimensions; each weight is read once."""
        along: dict[int, Tensor] = {}
        found = square_sums([(tensor, dims) for tensor, dims, _ in self._weights])
        for (_, _, positions), sums in zip(self._weights, found, strict=True):
            along.update(zip(positions, sums, strict=True))
        return [along[position] for position in range(len(self.tensors))]

    def norms(self) -> Tensor:
        """Return the L2 norm of each unit, ``(units,)``; its gradient at zero is 0."""
        squares = self.squares()
        return torch.where(squares > 0, squares, 1).sqrt() * (squares > 0)

    @torch.no_grad()
    def largest_norms(self) -> dict[str, float]:
        """Return group -> the largest norm of a unit that is pushed."""
        norms = self.norms() * (self.factors > 0)
        largest = norms.new_zeros(self.families).scatter_reduce(0, self.family, norms, 'amax')
        found: dict[str, float] = {}
        for name, value in zip(self.groups, largest.tolist(), strict=True):
            found[name] = max(found.get(name, 0.0), value)
        return found

    @torch.no_grad()
    def largest_norm(self) -> float:
        """Return the largest norm of a unit that is pushed, divided by its factor."""
        return float(torch.where(self.factors > 0, self.norms() / self.factors, 0).max())

    def add(self, pushes: Tensor) -> None:
        """Add the value of each weight, times a factor of its unit, to the gradient of the weight.

        Args:
            pushes: the factors, ``(units,)``. A weight of several units gets the sum of theirs.
        """
        parts = self._at_indices(pushes, outside=0.0)
        gradients = ensure_gradients(tensor for tensor, *_ in self._weights)
        factors: list[Tensor] = []
        targets: list[Tensor] = []
        weights: list[Tensor] = []
        # The weights that were read last may still be in the cache.
        for gradient, own in reversed([*zip(gradients, self._weights, strict=True)]):
            products = with_factors(_chosen(parts, *own), gradient, own[0])
            for row, more in zip((factors, targets, weights), products, strict=True):
                row.extend(more)
        torch._foreach_addcmul_(targets, weights, factors)

    def move(self, pushes: Tensor, optimizer: Optimizer, progress: Progress) -> None:
        """Shrink each unit by a share of it, at most to zero.

        Args:
            pushes: the shares at a step size of 1, ``(units,)``.
            optimizer: the optimizer that trains the weights.
            progress: the progress of the training.
        """
        for tensors, size in by_size(self.tensors, optimizer, progress):
            parts = self._at_indices((1 - size * pushes).clamp(min=0), outside=1.0)
            factors: list[Tensor] = []
            targets: list[Tensor] = []
            for own in reversed(self._weights):
                for values in with_states(optimizer, own[0]) if id(own[0]) in tensors else ():
                    products = with_factors(_chosen(parts, *own), values)
                    for row, more in zip((factors, targets), products, strict=True):
                        row.extend(more)
            torch._foreach_mul_(targets, factors)

    def _at_indices(self, values: Tensor, outside: float) -> tuple[Tensor, ...]:
        """Spread a value of each unit over the indices of each dimension with units."""
        every = torch.cat([values, values.new_full((1,), outside)]).index_select(0, self.unit)
        sizes = [t.shape[dim] for t, dim in zip(self.tensors, self.dims, strict=True)]
        return torch.split(every, sizes)


def _chosen(
    parts: Sequence[Tensor], tensor: Tensor, dims: Sequence[int], positions: Sequence[int]
) -> list[tuple[int, Tensor]]:
    """Return the factors of a parameter's dimensions, in its type."""
    return [
        (dim, parts[position].to(tensor)) for dim, position in zip(dims, positions, strict=True)
    ]


def _factors(group: ChannelGroup, factor: float, pushed: Mapping[str, Tensor] | None) -> Tensor:
    """Return the factor of the strength for each unit of a group."""
    factors = torch.full((group.size,), factor, dtype=torch.float64)
    if pushed is None:
        return factors
    return factors * pushed[group.name] if group.name in pushed else factors * 0


def _write_numbers(
    rows: dict[tuple[str, int], Tensor], graph: ChannelGraph, member: Member, first: int
) -> None:
    """Write the numbers of a member's units at its indices, starting from ``first``."""
    size = graph.parameter(member.param).shape[member.dim]
    row = rows.setdefault((member.param, member.dim), torch.full((size,), -1, dtype=torch.int64))
    row[member.index] = first + torch.arange(len(member.index))[:, None]
