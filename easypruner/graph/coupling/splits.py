"""Splits: which of the dimensions that a view splits another into stays free."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Set

import numpy as np

from easypruner.graph.coupling.axes import Axis, Ids, Part, SplitKey

Sized = list[tuple[Part, int]]
"""Parts of splits, with their sizes."""

MergeKey = tuple[int, tuple[int, ...]]
"""A merge of several dimensions into one: the number of its operation, and their sizes."""

WHOLE = -1
"""Instead of the number of a part: none of them stays free."""


class Splits:
    """The splits of a propagation, and which of their parts stay free.

    One part of a split stays free. Along the others the indices are coupled, because a cut must
    leave a rectangle.

    Attributes:
        attention: what attentions lose.
        preferred: split -> the part that should stay free.
        fixed: the expansions that make axes of which all indices stay.
        narrowed: the merges of which only one dimension may lose indices.
        merged: merge of several dimensions that may lose indices -> why it loses none.
        chosen: split -> the part that stays free.
        heads: split -> the part that counts the heads of an attention.
        head_widths: split -> the part that is the width of a head.
        loose: the axes that an expansion made and that were merged with another free one.
        grids: split -> the ids of the axis in the shape into which it is split.
        attentions: for each attention, for each of its tensors: the parts that count its heads,
            with their sizes, and those that are the width of one.
        widths: the other axes that have the width of a head, such as slices of a part.
    """

    def __init__(
        self,
        attention: str,
        preferred: Mapping[SplitKey, int],
        fixed: Set[SplitKey],
        narrowed: Set[MergeKey] = frozenset(),
    ) -> None:
        self.attention = attention
        self.preferred = preferred
        self.fixed = fixed
        self.narrowed = narrowed
        self.merged: dict[MergeKey, str] = {}
        self.chosen: dict[SplitKey, int] = {}
        self.heads: dict[SplitKey, int] = {}
        self.head_widths: dict[SplitKey, int] = {}
        self.loose: list[Axis] = []
        self.grids: dict[SplitKey, Ids] = {}
        self.attentions: list[list[tuple[Sized, Sized]]] = []
        self.widths: list[Axis] = []
        self._query_heads: dict[SplitKey, int] = {}
        self._shared_heads: dict[SplitKey, int] = {}
        self._operation = 0
        self._number = 0

    def start_operation(self) -> None:
        """Start the next operation. A split has the same key in every propagation of the tapes."""
        self._operation += 1
        self._number = 0

    def next_key(self) -> SplitKey:
        """Return the key of the next split, or expansion, of the operation."""
        key = self._operation, self._number
        self._number += 1
        return key

    def merge_key(self, sizes: Iterable[int]) -> MergeKey:
        """Return the key of a merge of dimensions of some sizes in the operation."""
        return self._operation, tuple(sizes)

    def choose(self, grid: Ids) -> tuple[SplitKey, int]:
        """Return the key of the next split, and the part of it that stays free, or ``WHOLE``.

        Args:
            grid: the ids of the axis in the shape into which it is split.
        """
        key = self.next_key()
        self.grids[key] = grid
        self.chosen[key] = self.preferred[key] if key in self.preferred else _free_dimension(grid)
        return key, self.chosen[key]

    def note_attention(self, *sides: tuple[Iterable[Axis], Iterable[Axis]]) -> list[Axis]:
        """Note which axes count the heads of an attention, and which have the width of a head.

        Args:
            sides: for each tensor, the axes that may count heads, and those that may have the width
                of one. A tensor with fewer heads than another shares them between several.

        Returns:
            The widths that must stay, if heads are lost: those of a single head that all share.
        """
        every = [[entry for axis in heads for entry in axis.parts] for heads, _ in sides]
        counts = [math.prod(size for _, size in parts) for parts in every]
        of_widths = ([(a.part, a.size) for a in widths if a.part] for _, widths in sides)
        self.attentions.append(list(zip(every, of_widths, strict=True)))
        if max(counts) > 1:
            every_width = (axis for _, widths in sides for axis in widths)
            self.widths += [a for a in every_width if a.part is None and not a.is_constant]
        shared: list[Axis] = []
        for (_, widths), parts, count in zip(sides, every, counts, strict=True):
            self.head_widths.update(axis.part for axis in widths if axis.part is not None)
            outermost = dict(part for part, _ in reversed(parts) if self._may_lose(part))
            self.heads.update(outermost)
            if count == max(counts):
                self._query_heads.update(part for part, _ in parts)
            else:
                self._shared_heads.update(outermost)
                shared += () if parts else widths
        return [] if self.attention == 'width' else shared

    def _may_lose(self, part: Part) -> bool:
        """Return whether the indices of a part differ: those of a batch all have the same heads."""
        return part.number in _varying(self.grids[part.split])

    def wanted(self) -> dict[SplitKey, int]:
        """Return split -> the part that should stay free."""
        if self.attention == 'width':
            return self.head_widths
        if self.attention == 'heads':
            return self.heads
        return {**self._query_heads, **dict.fromkeys(self._shared_heads, WHOLE)}

    def find_better(self, wanted: Mapping[SplitKey, int]) -> dict[SplitKey, int]:
        """Return those of the wanted parts that do not stay free."""
        return {split: part for split, part in wanted.items() if self.chosen[split] != part}


def _free_dimension(grid: Ids) -> int:
    """Choose the dimension that stays free: the largest of those along which ids vary."""
    return max(_varying(grid) or range(grid.ndim), key=lambda i: (grid.shape[i], i))


def _varying(grid: Ids) -> list[int]:
    """Return the dimensions along which ids vary."""
    return [i for i in range(grid.ndim) if not (grid == np.take(grid, [0], axis=i)).all()]
