"""The unit layout: where the units of all groups are in the parameters, as flat arrays.

A row is one index of one axis.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from easypruner.graph.coupling.axes import Ids

Bools = npt.NDArray[np.bool_]
Role = Literal['out', 'in']


@dataclass(frozen=True)
class Member:
    """The part that one dimension of one parameter or buffer has in a group.

    Attributes:
        param: the dotted name of the parameter or buffer.
        dim: the dimension that is cut.
        role: 'out' if it makes or carries the channels, 'in' if it reads (sums over) them.
        index: int64 tensor of shape ``(units, k)``: the indices of each unit in the dimension.
        operand: what the parameter is used as, such as ``'batch_norm.weight'``.
    """

    param: str
    dim: int
    role: Role
    index: Tensor
    operand: str

    @property
    def module(self) -> str:
        """The dotted path of the module that has the parameter."""
        return self.param.rpartition('.')[0]


class Dimension(NamedTuple):
    """A dimension of a parameter or buffer in which units may have indices.

    Attributes:
        param: the dotted name of the parameter or buffer.
        dim: the dimension.
        rank: the number of dimensions of the parameter.
        operand: what the parameter is used as.
        axis: the number of its axis. Dimensions that are cut alike share an axis.
        reads: whether it reads channels. If it is None, the rows of its axis decide.
    """

    param: str
    dim: int
    rank: int
    operand: str
    axis: int
    reads: bool | None


@dataclass(frozen=True)
class UnitLayout:
    """Where the units of all groups are, as rows sorted by group, axis and unit.

    Attributes:
        dimensions: the dimensions of parameters and buffers.
        sizes: the number of indices of each axis.
        axis: the number of the axis of each row.
        index: the index in that axis of each row.
        unit: the number of the unit of each row, counted over all groups.
        reads: whether the dimension for which the axis was made reads channels there.
        starts: the first row of each group, and the end of the last; shape ``(groups + 1,)``.
        first_unit: the first unit of each group, and their total; shape ``(groups + 1,)``.
    """

    dimensions: tuple[Dimension, ...]
    sizes: Ids
    axis: Ids
    index: Ids
    unit: Ids
    reads: Bools
    starts: Ids
    first_unit: Ids

    @cached_property
    def keys(self) -> list[tuple[tuple[str, int], int]]:
        """((parameter or buffer, dimension), number of its axis) of each dimension."""
        return [((d.param, d.dim), d.axis) for d in self.dimensions]

    @cached_property
    def run_starts(self) -> Ids:
        """The first row of each run of rows of one axis in one group, and the end of the last."""
        is_first = np.ones(self.axis.size + 1, dtype=bool)
        is_first[1:-1] = self.axis[1:] != self.axis[:-1]
        is_first[self.starts] = True
        return np.flatnonzero(is_first)

    @cached_property
    def parts(self) -> list[list[tuple[int, bool, int]]]:
        """For each group its (dimension, whether it reads, number of the run of its rows)."""
        by_axis: list[list[int]] = [[] for _ in self.sizes]
        for number, dimension in enumerate(self.dimensions):
            by_axis[dimension.axis].append(number)
        first = self.run_starts[:-1]
        groups = np.searchsorted(self.starts, first, side='right') - 1
        columns = (column.tolist() for column in (groups, self.axis[first], self.reads[first]))
        found: list[list[tuple[int, bool, int]]] = [[] for _ in range(self.starts.size - 1)]
        for run, (group, axis, own) in enumerate(zip(*columns, strict=True)):
            for number in by_axis[axis]:
                given = self.dimensions[number].reads
                found[group].append((number, own if given is None else given, run))
        return [sorted(parts) for parts in found]

    def find_lead(self, group: int) -> str:
        """Return the first weight that makes the channels of a group, or else what has them."""
        parts = self.parts[group]
        makers = [self.dimensions[number] for number, reads, _ in parts if not reads]
        weights = [dimension for dimension in makers if dimension.rank > 1]
        return (*weights, *makers, self.dimensions[parts[0][0]])[0].param

    def make_members(self, group: int, makers: bool = False) -> tuple[Member, ...]:
        """Return the members of a group.

        Args:
            group: the number of the group.
            makers: whether to return only the weights that make its channels.
        """
        units = int(self.first_unit[group + 1] - self.first_unit[group])
        members = []
        for number, reads, run in self.parts[group]:
            owner = self.dimensions[number]
            if makers and (reads or owner.rank < 2):
                continue
            start, stop = self.run_starts[run], self.run_starts[run + 1]
            index = torch.from_numpy(self.index[start:stop].reshape(units, -1))
            role: Role = 'in' if reads else 'out'
            members.append(Member(owner.param, owner.dim, role, index, owner.operand))
        return tuple(members)

    def mark_kept(self, masks: Mapping[int, Tensor]) -> Bools:
        """Return whether each unit is kept.

        Args:
            masks: number of a group -> bool tensor, True = keep. Other groups stay whole.
        """
        kept = np.ones(int(self.first_unit[-1]), dtype=bool)
        for number, mask in masks.items():
            begin, end = self.first_unit[number], self.first_unit[number + 1]
            kept[begin:end] = mask.numpy()
        return kept
