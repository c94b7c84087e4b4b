"""Widths: how many units each group keeps in a trial, and how wide that leaves each axis."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from easypruner.graph.coupling.axes import Axis, Ids
from easypruner.graph.coupling.coupling import Coupling
from easypruner.graph.coupling.groups import Partition
from easypruner.graph.coupling.layout import Bools

_SEED = 20220117
_ROUNDS_OF_NARROW_GROUPS = 4
_ROUNDS_OF_SMALL_NETWORKS = 3
_FEW_UNITS = 256
_NEIGHBOURS = 6


class Widths:
    """The widths of axes in one round of trials: how many indices of each stay.

    Attributes:
        stays: id -> whether its index stays. An index with a reason always stays.
        round_number: the number of the round.

    Args:
        coupling: has the nodes and the reasons.
        parts: how the nodes fall into groups.
        kept: whether each unit is kept.
        round_number: the number of the round.
    """

    def __init__(
        self, coupling: Coupling, parts: Partition, kept: Bools, round_number: int
    ) -> None:
        axes = coupling.axes
        stays = np.ones(axes.nodes + len(axes.reasons.texts) + 1, dtype=bool)
        free = parts.unit_of >= 0
        # The ids of reasons are negative, so they find their entries from the end.
        stays[: parts.unit_of.size][free] = kept[parts.unit_of[free]]
        self.stays = stays
        self.round_number = round_number
        self._sizes: dict[Axis, int] = {}

    def __call__(self, axis: Axis) -> int:
        """Return how many indices of an axis stay."""
        size = self._sizes.get(axis)
        if size is None:
            size = self._sizes[axis] = int(np.count_nonzero(self.stays[axis.ids]))
        return size


def choose_units(parts: Partition, groups: Iterable[int] | None, round_number: int) -> Bools:
    """Choose at random which units are kept.

    Args:
        parts: how the nodes fall into groups.
        groups: the numbers of the groups that are cut; by default all.
        round_number: the number of the round. Each round cuts differently.
    """
    group_of = parts.group_of
    random = np.random.default_rng((_SEED, round_number)).random(group_of.size)
    # Units are numbered group by group.
    order = np.argsort(group_of + random)
    starts = np.cumsum(parts.sizes) - parts.sizes
    counts = _count_kept(parts.sizes, round_number)
    kept = np.empty(group_of.size, dtype=bool)
    kept[order] = np.arange(order.size) - starts[group_of] < counts[group_of]
    if groups is not None:
        kept |= ~np.isin(group_of, list(groups))
    return kept


def count_rounds(sizes: Ids) -> int:
    """Return in how many rounds a cut is tried, given the sizes of the groups.

    One round may pass by chance if groups are small, or if groups of the same size keep the same
    number of units. Then there are several rounds.
    """
    distinct, alike = np.unique(sizes[sizes > 1], return_counts=True)
    choices = np.array([size - _least(size) for size in distinct.tolist()], dtype=np.int64)
    if bool(((choices == 1) & (alike > 1)).any()):
        return _ROUNDS_OF_NARROW_GROUPS
    by_chance = bool((choices < np.minimum(alike, _NEIGHBOURS)).any())
    return _ROUNDS_OF_SMALL_NETWORKS if by_chance or sizes.sum() < _FEW_UNITS else 1


def _count_kept(sizes: Ids, round_number: int) -> Ids:
    """Return how many units each group keeps: from two fifths to all but one.

    Code that is right only if two widths are equal must fail. So groups of the same size keep
    different numbers as far as there are enough, and other numbers in other rounds. If there is
    only one number, some groups stay whole in every round but the first.
    """
    counts = np.ones_like(sizes)
    for size in np.unique(sizes[sizes > 1]).tolist():
        random = np.random.default_rng((_SEED, size, round_number))
        choices, step = np.arange(_least(size), size), round_number
        if choices.size == 1 and round_number:
            choices, step = np.append(choices, size), round_number - 1
        choices = random.permutation(choices)
        alike = np.flatnonzero(sizes == size)
        counts[alike] = choices[_choose(np.arange(alike.size), choices.size, step)]
    return counts


def _least(size: int) -> int:
    """Return the smallest number of units that a group keeps in a trial.

    It is at least 2 if the group has more than two units: torch treats a dimension of one index
    differently, for example it need not copy it.
    """
    return 1 if size == 2 else max(2, -(-2 * size // 5))


def _choose(numbers: Ids, choices: int, round_number: int) -> Ids:
    """Return which of the choices each number takes in a round.

    Neighbours differ in every round. Any two numbers below ``choices ** rounds`` differ in some
    round: in the first one by their last digit to that base, later by one more digit.
    """
    digit = numbers // min(choices**round_number, 2**62) if round_number else 0
    return (numbers + digit) % choices
