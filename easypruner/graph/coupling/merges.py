"""Merges of dimensions of which several may lose indices, and what uses them as one dimension."""

from __future__ import annotations

from collections.abc import Iterator, Set

import numpy as np

from easypruner.graph.coupling.axes import Axis
from easypruner.graph.coupling.coupling import Coupling


def find_used_merges(coupling: Coupling) -> set[str]:
    """Return the reasons of the merges whose axis is used as one that has no factors.

    The indices of such an axis have no nodes: those of its factors say what it loses. What couples
    it with another axis, cuts a piece of it or counts its indices would not know of any loss.
    """
    merged = {coupling.axes.reasons.id_of(text): text for text in coupling.splits.merged.values()}
    wanted = np.array(list(merged), dtype=np.int64)
    first, second = coupling.edges.arrays()
    ids = {*first[np.isin(first, wanted)].tolist(), *second[np.isin(second, wanted)].tolist()}
    for axis in _other_uses(coupling, merged.keys()):
        ids |= set(axis.ids[np.isin(axis.ids, wanted)].tolist())
    return {merged[number] for number in ids}


def _other_uses(coupling: Coupling, merged: Set[int]) -> Iterator[Axis]:
    """Yield axes that may have ids of merges: those of tensors, and those that rules counted."""
    for axis in coupling.axes.of_tensors():
        # The axis of the merge itself is no use of it.
        if (axis.reason in merged) if axis.is_constant else len(axis.dimensions) == 1:
            yield axis
    tally = coupling.tally
    yield from (width.axis for width in tally.widths)
    yield from (axis for axis, _ in (*tally.multiples, *tally.minimums))
