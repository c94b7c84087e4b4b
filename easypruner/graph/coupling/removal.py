"""Removal: what the units that go mean for the dimensions of parameters, and for the layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

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
        starts = np.searchsorted(stays, self._offsets)
        ends = np.searchsorted(stays, self._offsets + self.layout.sizes)
        counts = ends - starts
        # Each index counts from the start of its axis.
        stays -= np.repeat(self._offsets, counts)
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
        counts: list[int] = np.diff(_count_up_to(self.kept, self.layout.first_unit)).tolist()
        return counts

    def after(self) -> UnitLayout:
        """Return the layout of the model that a cut leaves."""
        layout, stays, kept = self.layout, self._stays, self.kept
        before = np.concatenate([[0], np.cumsum(self._flat)])
        first = before[self._offsets]
        axis, index = layout.axis[stays], layout.index[stays]
        later = replace(
            layout,
            sizes=before[self._offsets + layout.sizes] - first,
            axis=axis,
            index=before[self._offsets[axis] + index] - first[axis],
            unit=(np.cumsum(kept) - 1)[layout.unit[stays]],
            reads=layout.reads[stays],
            starts=_count_up_to(stays, layout.starts),
            first_unit=_count_up_to(kept, layout.first_unit),
        )
        # What depends on the dimensions alone stays as it is.
        for name in ('keys', '_by_axis'):
            later.__dict__[name] = getattr(layout, name)
        return later


def _count_up_to(stays: Bools, bounds: Ids) -> Ids:
    """Return how many entries stay before each bound."""
    return np.concatenate([[0], np.cumsum(stays)])[bounds].astype(np.int64)
