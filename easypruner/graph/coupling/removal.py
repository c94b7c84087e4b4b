"""Removal: what the units that go mean for the dimensions of parameters, and for the layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from easypruner.base.lazy import LazyDict
from easypruner.graph.coupling.axes import Ids
from easypruner.graph.coupling.layout import Bools, UnitLayout


class Removal:
    """The units that go of a layout. One pass over its rows finds what follows from them.

    Attributes:
        layout: the layout.
        kept: whether each unit is kept.

    Args:
        layout: the layout.
        kept: whether each unit is kept.
    """

    def __init__(self, layout: UnitLayout, kept: Bools) -> None:
        self.layout = layout
        self.kept = kept
        self._stays = kept[layout.unit]
        gone = np.flatnonzero(~self._stays)
        axis = layout.axis[gone]
        sizes = layout.sizes
        self._offsets = np.cumsum(sizes) - sizes
        # All axes in one row, True = keep.
        self._flat = np.ones(int(sizes.sum()), dtype=bool)
        self._flat[self._offsets[axis] + layout.index[gone]] = False
        touched = np.zeros(sizes.size, dtype=bool)
        touched[axis] = True
        self._touched = np.flatnonzero(touched)

    def masks(self) -> dict[tuple[str, int], Tensor]:
        """Return (parameter or buffer, dimension) -> bool tensor, True = keep, if something goes.

        Dimensions of the same axis share the tensor.
        """
        ends = self._offsets + self.layout.sizes
        return self._by_dimension(self._flat, self._offsets, ends)

    def indices(self) -> dict[tuple[str, int], Tensor]:
        """Return (parameter or buffer, dimension) -> the indices that stay, if something goes.

        They are ascending. Dimensions of the same axis share the tensor.
        """
        stays = np.flatnonzero(self._flat)
        starts, ends = self._bounds
        # Each index counts from the start of its axis.
        stays -= np.repeat(self._offsets, ends - starts)
        return self._by_dimension(stays, starts, ends)

    def _by_dimension(
        self, values: Bools | Ids, starts: Ids, ends: Ids
    ) -> dict[tuple[str, int], Tensor]:
        """Return the values of each dimension that loses indices."""
        touched = self._touched
        rows = zip(touched.tolist(), starts[touched].tolist(), ends[touched].tolist(), strict=True)
        of_axis = {axis: torch.from_numpy(values[start:end]) for axis, start, end in rows}
        return {key: of_axis[axis] for key, axis in self.layout.keys if axis in of_axis}

    def units_of(self, numbers: Mapping[str, int]) -> Mapping[str, tuple[tuple[int, ...], int]]:
        """Return group -> the units that stay and the number before, for groups that lose units.

        Args:
            numbers: group -> its number.
        """
        kept, first = self.kept, self.layout.first_unit

        def list_units() -> dict[str, tuple[tuple[int, ...], int]]:
            own = {name: kept[first[n] : first[n + 1]] for name, n in numbers.items()}
            return {
                name: (tuple(np.flatnonzero(units).tolist()), units.size)
                for name, units in own.items()
                if not units.all()
            }

        return LazyDict(list_units)

    def counts(self) -> list[int]:
        """Return how many units of each group stay."""
        counts: list[int] = np.diff(self._units_before[self.layout.first_unit]).tolist()
        return counts

    def after(self) -> UnitLayout:
        """Return the layout of the model that a cut leaves."""
        layout, stays = self.layout, self._stays
        first, end = self._bounds
        axis, index = layout.axis[stays], layout.index[stays]
        rows_before = _count_before(stays)
        later = replace(
            layout,
            sizes=end - first,
            axis=axis,
            index=self._indices_before[self._offsets[axis] + index] - first[axis],
            unit=self._units_before[layout.unit[stays]],
            reads=layout.reads[stays],
            starts=rows_before[layout.starts],
            first_unit=self._units_before[layout.first_unit],
        )
        # Each run keeps rows, because each group keeps a unit. So the parts stay as they are.
        later.__dict__.update(
            keys=layout.keys, parts=layout.parts, run_starts=rows_before[layout.run_starts]
        )
        return later

    @cached_property
    def _bounds(self) -> tuple[Ids, Ids]:
        """The first index of each axis among all that stay, and the end of its indices."""
        ends = self._offsets + self.layout.sizes
        return self._indices_before[self._offsets], self._indices_before[ends]

    @cached_property
    def _indices_before(self) -> Ids:
        return _count_before(self._flat)

    @cached_property
    def _units_before(self) -> Ids:
        return _count_before(self.kept)


def _count_before(stays: Bools) -> Ids:
    """Return how many entries stay before each one, and before the end."""
    counts = np.zeros(stays.size + 1, dtype=np.int64)
    np.cumsum(stays, out=counts[1:])
    return counts
