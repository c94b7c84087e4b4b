"""Places: where the units of all groups stand in the parameters, as flat arrays.

One row is one index of one dimension of one parameter or buffer. Masks are spread over the
parameters, and the graph is brought up to date after a cut, in one pass over these arrays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Ids = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Role = Literal['out', 'in']


@dataclass(frozen=True)
class Member:
    """The part that one dimension of one parameter or buffer has in a group.

    Attributes:
        param: dotted name of the parameter or buffer.
        dim: the dimension that is cut.
        role: 'out' where it makes or carries the channels, 'in' where it reads (sums over) them.
        index: int64 tensor of shape ``(units, k)``: the indices of each unit in the dimension.
        operand: what the parameter is used as, e.g. ``'batch_norm.weight'``.
    """

    param: str
    dim: int
    role: Role
    index: Tensor
    operand: str

    @property
    def module(self) -> str:
        """Dotted path of the module that owns the parameter."""
        return self.param.rpartition('.')[0]


@dataclass(frozen=True)
class Dimension:
    """A dimension of a parameter or buffer that holds units of groups.

    Attributes:
        param: dotted name of the parameter or buffer.
        dim: the dimension.
        size: how many indices it has.
        rank: how many dimensions the parameter has.
        operand: what the parameter is used as.
    """

    param: str
    dim: int
    size: int
    rank: int
    operand: str


@dataclass(frozen=True)
class Places:
    """Rows, sorted by group, dimension and unit.

    Attributes:
        dimensions: that hold units.
        dimension: of each row, its place in ``dimensions``.
        index: of each row, its index in that dimension.
        unit: of each row, the number of its unit over all groups.
        reads: whether the dimension reads channels there.
        starts: where each group's rows start, with the end of the last; shape ``(groups + 1,)``.
        first_unit: number of each group's first unit, with their total; shape ``(groups + 1,)``.
    """

    dimensions: tuple[Dimension, ...]
    dimension: Ids
    index: Ids
    unit: Ids
    reads: Bools
    starts: Ids
    first_unit: Ids

    def members(self, group: int, makers: bool = False) -> tuple[Member, ...]:
        """Return the members of a group; only the weights that make its channels if asked."""
        begin, end = int(self.starts[group]), int(self.starts[group + 1])
        units = int(self.first_unit[group + 1] - self.first_unit[group])
        rows = self.dimension[begin:end]
        edges = np.flatnonzero(np.diff(rows, prepend=-1, append=-1)) + begin
        members = []
        for start, stop in pairwise(edges.tolist()):
            place = self.dimensions[self.dimension[start]]
            reads = bool(self.reads[start])
            if makers and (reads or place.rank < 2):
                continue
            index = torch.from_numpy(self.index[start:stop].reshape(units, -1))
            role: Role = 'in' if reads else 'out'
            members.append(Member(place.param, place.dim, role, index, place.operand))
        return tuple(members)

    def kept_units(self, masks: Mapping[int, Tensor]) -> Bools:
        """Return whether each unit is kept, by masks under the numbers of their groups."""
        kept = np.ones(int(self.first_unit[-1]), dtype=bool)
        for number, mask in masks.items():
            begin, end = self.first_unit[number], self.first_unit[number + 1]
            kept[begin:end] = mask.numpy()
        return kept

    def spread(self, kept: Bools) -> dict[tuple[str, int], Tensor]:
        """Return (parameter or buffer, dim) -> bool tensor, True = keep, where something goes."""
        gone = ~kept[self.unit]
        flat, offsets = self._flat(gone)
        touched = np.zeros(len(self.dimensions), dtype=bool)
        touched[self.dimension[gone]] = True
        return {
            (place.param, place.dim): torch.from_numpy(flat[start : start + place.size])
            for place, start, cut in zip(self.dimensions, offsets.tolist(), touched, strict=True)
            if cut
        }

    def after(self, kept: Bools) -> Places:
        """Return the places in the model that is left of a cut."""
        stays = kept[self.unit]
        flat, offsets = self._flat(~stays)
        position = np.cumsum(flat) - 1
        before = np.concatenate([[0], position + 1])
        ends = offsets + np.array([place.size for place in self.dimensions], dtype=np.int64)
        sizes = before[ends] - before[offsets] if offsets.size else offsets
        moved = position[offsets[self.dimension] + self.index] - before[offsets[self.dimension]]
        return Places(
            dimensions=tuple(
                Dimension(place.param, place.dim, size, place.rank, place.operand)
                for place, size in zip(self.dimensions, sizes.tolist(), strict=True)
            ),
            dimension=self.dimension[stays],
            index=moved[stays],
            unit=(np.cumsum(kept) - 1)[self.unit[stays]],
            reads=self.reads[stays],
            starts=_counted(stays, self.starts),
            first_unit=_counted(kept, self.first_unit),
        )

    def _flat(self, gone: Bools) -> tuple[Bools, Ids]:
        """Return all dimensions in a row, True = keep, and where each starts."""
        sizes = np.array([place.size for place in self.dimensions], dtype=np.int64)
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        flat = np.ones(int(offsets[-1]), dtype=bool)
        flat[offsets[self.dimension[gone]] + self.index[gone]] = False
        return flat, offsets[:-1]


def _counted(stays: Bools, bounds: Ids) -> Ids:
    """Return bounds of what stays."""
    return np.concatenate([[0], np.cumsum(stays)])[bounds].astype(np.int64)


class Members(Sequence[Member]):
    """The members of a group, made when first asked for: most uses need but a few of them."""

    def __init__(self, places: Places, group: int) -> None:
        self._places = places
        self._group = group
        self._made: tuple[Member, ...] | None = None

    @property
    def makers(self) -> tuple[Member, ...]:
        """The weights that make the channels."""
        return self._places.members(self._group, makers=True)

    def _all(self) -> tuple[Member, ...]:
        if self._made is None:
            self._made = self._places.members(self._group)
        return self._made

    def __len__(self) -> int:
        return len(self._all())

    @overload
    def __getitem__(self, position: int) -> Member: ...
    @overload
    def __getitem__(self, position: slice) -> tuple[Member, ...]: ...
    def __getitem__(self, position: int | slice) -> Member | tuple[Member, ...]:
        return self._all()[position]

    def __repr__(self) -> str:
        return repr(self._all())
