"""Edges: pairs of nodes that live or die together, and pairs of a node and a reason to stay."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from easypruner.graph.coupling.axes import Axis, Ids

_MANY = 4096
"""An axis of more indices mostly repeats nodes, as one of all positions at which boxes are."""


class Edges:
    """Pairs of ids that live or die together. A node that is paired with a reason stays."""

    def __init__(self) -> None:
        self._pairs: list[tuple[Ids, Ids]] = []

    def couple(self, a: Axis, b: Axis) -> Axis:
        """Couple two axes of one size, index by index; return the one to hand on."""
        # What the axis was made of says later which of its dimensions are heads.
        known = b if b.is_made and not a.is_made else a
        if a is b or (a.is_constant and b.is_constant):
            return known
        if a.ids.size > _MANY and (a.is_constant or b.is_constant):
            self._freeze_alike(*((a, b) if a.is_constant else (b, a)))
        else:
            self._pairs.append((a.ids, b.ids))
        if a.is_constant:
            return a
        if b.is_constant:
            return b
        if b.ids.size and b.ids.min() < 0:
            return Axis.of(np.where(b.ids < 0, b.ids, a.ids))
        return a if a.ids.size and a.ids.min() < 0 else known

    def couple_runs(self, axis: Axis, count: int) -> Axis:
        """Couple the indices at each position of ``count`` equal runs; return one run.

        >>> edges = Edges()
        >>> edges.couple_runs(Axis(np.arange(6)), 2).ids
        array([0, 1, 2])
        >>> edges.arrays()
        (array([0, 1, 2]), array([3, 4, 5]))
        """
        runs = axis.runs(count)
        if axis.is_constant:
            return Axis(runs[0], axis.reason)
        first, others = runs[0], runs[1:]
        differ = others != first
        if differ.any():
            self._pairs.append((first[differ.nonzero()[1]], others[differ]))
            least = runs.min(axis=0)
            first = np.where(least < 0, least, first)
        return Axis.of(first)

    def freeze(self, ids: Ids, reason: int) -> None:
        """Pair ids with a reason, so that their indices stay."""
        nodes = _nodes_among(ids) if ids.size > _MANY else ids
        self._pairs.append((nodes, np.full(nodes.size, reason, dtype=np.int64)))

    def _freeze_alike(self, constant: Axis, axis: Axis) -> None:
        """Pair each index of an axis with the reason that a constant axis has at that index."""
        reasons = np.unique(constant.ids)
        for reason in reasons.tolist():
            ids = axis.ids if reasons.size == 1 else axis.ids[constant.ids == reason]
            self.freeze(ids, reason)

    def mark(self) -> int:
        """Return a mark to which :meth:`revert` can go back."""
        return len(self._pairs)

    def revert(self, mark: int) -> None:
        """Remove the edges that were added since :meth:`mark`."""
        del self._pairs[mark:]

    def numbers(self) -> Ids:
        """Return for each edge the number of the call that made it; see :meth:`mark`."""
        sizes = [len(first) for first, _ in self._pairs]
        return np.repeat(np.arange(len(sizes)), np.array(sizes, dtype=np.int64))

    def arrays(self) -> tuple[Ids, Ids]:
        """Return the two ids of every edge, as two arrays."""
        return _joined(self._pairs)

    def arrays_of(self, calls: Iterable[range]) -> tuple[Ids, Ids]:
        """Return the two ids of every edge between nodes that calls of some numbers made."""
        a, b = _joined(
            pair for numbers in calls for pair in self._pairs[numbers.start : numbers.stop]
        )
        inner = (a >= 0) & (b >= 0)
        return a[inner], b[inner]


def _joined(pairs: Iterable[tuple[Ids, Ids]]) -> tuple[Ids, Ids]:
    empty = np.empty(0, dtype=np.int64)
    a, b = map(np.concatenate, zip((empty, empty), *pairs, strict=True))
    return a, b


def _nodes_among(ids: Ids) -> Ids:
    """Return the nodes among ids, each once."""
    seen = np.zeros(max(int(ids.max()), -1) + 1, dtype=bool)
    seen[ids[ids >= 0]] = True
    return np.flatnonzero(seen)
