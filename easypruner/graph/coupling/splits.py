"""Splits: which of the dimensions that a view splits another into stays free."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from easypruner.graph.coupling.axes import Axis, Ids, SplitKey


class Splits:
    """The splits of a propagation, and which of their parts stay free.

    One part of a split stays free. Along the others the indices are coupled, because a cut must
    leave a rectangle.

    Attributes:
        preferred: split -> the part that should stay free.
        chosen: split -> the part that stays free.
        heads: split -> the part that counts the heads of an attention.
        head_widths: split -> the part that is the width of a head.
    """

    def __init__(self, preferred: Mapping[SplitKey, int]) -> None:
        self.preferred = preferred
        self.chosen: dict[SplitKey, int] = {}
        self.heads: dict[SplitKey, int] = {}
        self.head_widths: dict[SplitKey, int] = {}
        self._operation = 0
        self._number = 0

    def start_operation(self) -> None:
        """Start the next operation. A split has the same key in every propagation of the tapes."""
        self._operation += 1
        self._number = 0

    def choose(self, grid: Ids) -> tuple[SplitKey, int]:
        """Return the key of the next split, and the part of it that stays free.

        Args:
            grid: the ids of the axis in the shape into which it is split.
        """
        key = self._operation, self._number
        self._number += 1
        self.chosen[key] = self.preferred[key] if key in self.preferred else _free_dimension(grid)
        return key, self.chosen[key]

    def note_attention(self, heads: Iterable[Axis], widths: Iterable[Axis]) -> None:
        """Note which axes count the heads of an attention, and which have the width of a head."""
        for axes, found in ((heads, self.heads), (widths, self.head_widths)):
            found.update(axis.part for axis in axes if axis.part is not None)

    def find_better(self, wanted: Mapping[SplitKey, int]) -> dict[SplitKey, int]:
        """Return those of the wanted parts that do not stay free."""
        return {split: part for split, part in wanted.items() if self.chosen[split] != part}


def _free_dimension(grid: Ids) -> int:
    """Choose the dimension that stays free: the only one along which ids vary, else the largest."""
    varies = [i for i in range(grid.ndim) if not (grid == np.take(grid, [0], axis=i)).all()]
    if len(varies) == 1:
        return varies[0]
    return max(range(grid.ndim), key=lambda i: (grid.shape[i], i))
