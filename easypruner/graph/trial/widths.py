"""Widths: how many units each group keeps in a trial, and the attributes that follow widths."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from easypruner.graph.coupling.axes import Axis, Ids
from easypruner.graph.coupling.cost import AxisSizes, AxisTable
from easypruner.graph.coupling.coupling import Coupling
from easypruner.graph.coupling.groups import OwnedAxes, Partition
from easypruner.graph.coupling.layout import Bools
from easypruner.graph.recording.inventory import Attributes, dotted_name

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
        owned: the axes of parameters, if their widths shall be counted all at once.
    """

    def __init__(
        self,
        coupling: Coupling,
        parts: Partition,
        kept: Bools,
        round_number: int,
        owned: OwnedAxes | None = None,
    ) -> None:
        axes = coupling.axes
        stays = np.ones(axes.nodes + len(axes.reasons.texts) + 1, dtype=bool)
        free = parts.unit_of >= 0
        # The ids of reasons are negative, so they find their entries from the end.
        stays[: parts.unit_of.size][free] = kept[parts.unit_of[free]]
        self.stays = stays
        self.round_number = round_number
        self._sizes: dict[Axis, int] = {} if owned is None else owned.count(stays)

    def __call__(self, axis: Axis) -> int:
        """Return how many indices of an axis stay."""
        size = self._sizes.get(axis)
        if size is None:
            parts = axis.dimensions
            if parts == (axis,):
                size = int(np.count_nonzero(self.stays[axis.ids]))
            else:
                size = math.prod(map(self, parts))
            self._sizes[axis] = size
        return size

    def attributes(self, repairs: Repairs) -> Attributes:
        """Return the values of the repaired attributes."""
        return {key: repair.fill(self) for key, repair in repairs.items()}


def choose_units(
    parts: Partition, groups: Iterable[int] | None, round_number: int, former: bool = False
) -> Bools:
    """Choose at random which units are kept.

    Args:
        parts: how the nodes fall into groups.
        groups: the numbers of the groups that are cut; by default all.
        round_number: the number of the round. Each round cuts differently.
        former: whether groups keep as many units as those of the next smaller size had.
    """
    group_of = parts.group_of
    random = np.random.default_rng((_SEED, round_number)).random(group_of.size)
    # Units are numbered group by group.
    order = np.argsort(group_of + random)
    starts = np.cumsum(parts.sizes) - parts.sizes
    counts = _count_kept(parts.sizes, round_number)
    if former:
        counts = _count_former(parts.sizes, counts)
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


def _count_former(sizes: Ids, counts: Ids) -> Ids:
    """Return how many units groups keep if each becomes as large as one of the next smaller size.

    Code that compares a width with a number that no cut sets must fail.

    Args:
        sizes: the sizes of the groups.
        counts: what groups of the smallest size keep.
    """
    distinct, rank = np.unique(sizes, return_inverse=True)
    return np.where(rank > 0, distinct[rank - 1], counts)


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


@dataclass(frozen=True, eq=False)
class Repair:
    """An attribute of a module that holds the width of an axis, or the widths of several.

    Attributes:
        module: the dotted path of the module.
        attribute: the name of the attribute.
        axes: the axis that each number follows; None for a number that does not change.
        values: the numbers in the full model.
        container: the type of the attribute: a type of integers, list or tuple.
    """

    module: str
    attribute: str
    axes: tuple[Axis | None, ...]
    values: tuple[int, ...]
    container: type

    @property
    def key(self) -> tuple[str, str]:
        """The path of the module and the name of the attribute."""
        return self.module, self.attribute

    def split(self) -> list[Repair]:
        """Return a repair of each number that changes, which leaves the others as they are."""
        return [
            replace(self, axes=tuple(axis if other == place else None for other in range(count)))
            for count in [len(self.axes)]
            for place, axis in enumerate(self.axes)
            if axis is not None
        ]

    def over(self, before: Repair | None) -> Repair:
        """Return this repair, with the axes of an earlier one for the numbers that it leaves."""
        if before is None:
            return self
        pairs = zip(self.axes, before.axes, strict=True)
        return replace(self, axes=tuple(old if axis is None else axis for axis, old in pairs))

    def fill(self, width_of: Callable[[Axis], int]) -> Any:
        """Return the attribute's value if its axes have the widths that a function returns."""
        pairs = zip(self.axes, self.values, strict=True)
        numbers = [value if axis is None else width_of(axis) for axis, value in pairs]
        several = issubclass(self.container, list | tuple)
        return self.container(numbers) if several else numbers[0]


Repairs = Mapping[tuple[str, str], Repair]
"""(path of a module, name of an attribute) -> its repair."""


def join(repairs: Repairs, more: Iterable[Repair]) -> Repairs:
    """Return repairs with more of them, which replace those of the same numbers."""
    joined = dict(repairs)
    for repair in more:
        joined[repair.key] = repair.over(joined.get(repair.key))
    return joined


@dataclass(frozen=True)
class RepairedNumber:
    """An attribute of a module that a cut sets to another value.

    Attributes:
        module: the dotted path of the module.
        attribute: the name of the attribute.
        before: the integer, or the integers, in the model.
        after: the integer, or the integers, after the cut.

    >>> print(RepairedNumber('blocks.0.attn', 'head_dim', 32, 20))
    blocks.0.attn.head_dim: 32 -> 20
    """

    module: str
    attribute: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f'{dotted_name(self.module, self.attribute)}: {self.before} -> {self.after}'


@dataclass(frozen=True)
class AttributeModel:
    """The values of repaired attributes as functions of the kept units.

    Attributes:
        repairs: the repairs.
        parts: how the nodes fall into groups.
    """

    repairs: Repairs
    parts: Partition

    @cached_property
    def _table(self) -> AxisTable:
        """The numbers of the axes of the repairs."""
        table = AxisTable()
        for repair in self.repairs.values():
            repair.fill(table.number_of)  # gives each axis its number
        return table

    @cached_property
    def _sizes(self) -> AxisSizes:
        """The kept sizes of these axes."""
        return self._table.find_sizes(self.parts)

    def __call__(self, units: Sequence[int]) -> Attributes:
        """Return the values if each group keeps the given number of units."""
        if not self.repairs:
            return {}
        sizes, number_of = self._sizes(units).tolist(), self._table.number_of
        return {
            key: repair.fill(lambda axis: sizes[number_of(axis)])
            for key, repair in self.repairs.items()
        }
