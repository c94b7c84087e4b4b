"""Coincidences: dimensions of different make that keep the same width in all rounds by chance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from easypruner.graph.coupling.axes import Ids
from easypruner.graph.coupling.groups import OwnedAxes, Partition
from easypruner.graph.coupling.layout import Bools

_Make = tuple[tuple[int, int], ...]


def has_coincidence(owned: OwnedAxes, parts: Partition, rounds: Sequence[Bools]) -> bool:
    """Return whether two axes of the same size keep the same width in each of several rounds.

    Code that takes one width for the other would pass then. Axes of the same make do not count:
    groups of the same size keep different numbers of units as far as there are enough.

    Args:
        owned: the axes of parameters.
        parts: how the nodes fall into groups.
        rounds: for each round, whether each unit is kept.
    """
    units = parts.unit_of[owned.node]
    axis, unit = owned.axis[units >= 0], units[units >= 0]
    makes = _makes(axis, unit, parts)
    gone = [np.bincount(axis[~kept[unit]], minlength=owned.sizes.size) for kept in rounds]
    found: dict[tuple[int, ...], _Make] = {}
    for number, make in makes.items():
        widths = (int(owned.sizes[number]), *(int(counts[number]) for counts in gone))
        if found.setdefault(widths, make) != make:
            return True
    return False


def _makes(axis: Ids, unit: Ids, parts: Partition) -> dict[int, _Make]:
    """Return number of an axis -> (units, indices) of each group in it, sorted."""
    groups = parts.sizes.size
    keys, counts = np.unique(axis * groups + parts.group_of[unit], return_counts=True)
    makes: dict[int, list[tuple[int, int]]] = {}
    for key, count in zip(keys.tolist(), counts.tolist(), strict=True):
        number, group = divmod(key, groups)
        makes.setdefault(number, []).append((int(parts.sizes[group]), count))
    return {number: tuple(sorted(make)) for number, make in makes.items()}
