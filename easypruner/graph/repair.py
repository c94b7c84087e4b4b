"""Repair: integers that modules hold are set to the widths that a cut gives them.

A candidate is an attribute of the module whose forward failed that equals a width which the cut
changes. It is kept if the trial run then gets past the failing operation, and at last through.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from typing import Any

from torch import nn

from easypruner.graph.attributes import Attributes
from easypruner.graph.cost import AxisSizes, AxisTable
from easypruner.graph.coupling import Axis, Coupling
from easypruner.graph.groups import Partition
from easypruner.graph.proof import Failure, Trial, Widths
from easypruner.graph.tape import Operation

_HIDDEN = ('_parameters', '_buffers', '_modules', '_version')
_MOST_TOGETHER = 2


@dataclass(frozen=True)
class Repair:
    """An attribute of a module that holds the width of an axis, or several.

    Attributes:
        module: dotted path.
        attribute: its name.
        axes: the axis each number follows; None where a number does not change.
        values: the numbers as they are in the full model.
        container: int, list or tuple.
    """

    module: str
    attribute: str
    axes: tuple[Axis | None, ...]
    values: tuple[int, ...]
    container: type

    def value(self, widths: Widths) -> Any:
        """Return the attribute's value under a choice of units."""
        return self.filled([None if axis is None else widths(axis) for axis in self.axes])

    def filled(self, sizes: Sequence[int | None]) -> Any:
        """Return the attribute's value with the given sizes; None leaves a number as it is."""
        numbers = [
            value if size is None else size for size, value in zip(sizes, self.values, strict=True)
        ]
        return numbers[0] if self.container is int else self.container(numbers)


@dataclass(frozen=True)
class AttributeModel:
    """The repaired attributes as functions of the kept units."""

    repairs: tuple[Repair, ...]
    sizes: AxisSizes
    numbers: tuple[tuple[int | None, ...], ...]

    @classmethod
    def build(
        cls, repairs: tuple[Repair, ...], coupling: Coupling, parts: Partition
    ) -> AttributeModel:
        """Number the axes of ``repairs`` and find their sizes under any choice of units."""
        table = AxisTable(coupling)
        numbers = tuple(
            tuple(None if axis is None else table.number(axis) for axis in repair.axes)
            for repair in repairs
        )
        return cls(repairs, table.sizes(parts), numbers)

    def __call__(self, units: Sequence[int]) -> Attributes:
        """Return the values where each group keeps the given number of units."""
        sizes = self.sizes(units).tolist()
        return {
            (repair.module, repair.attribute): repair.filled(
                [None if number is None else sizes[number] for number in numbers]
            )
            for repair, numbers in zip(self.repairs, self.numbers, strict=True)
        }


@dataclass(frozen=True)
class Settled:
    """What the proof came to.

    Attributes:
        repairs: attributes to set after a cut.
        held: number of a group -> why it stays after all.
    """

    repairs: tuple[Repair, ...]
    held: dict[int, str]


def settle(trial: Trial) -> Settled:
    """Try the cut of all groups; repair what fails, and hold what cannot be repaired.

    What is found for one module is tried on all modules of its type at once.
    """
    repairs: tuple[Repair, ...] = ()
    held: dict[int, str] = {}
    sizes = [group.size for group in trial.parts.groups.values()]
    active = {number for number, size in enumerate(sizes) if size > 1}
    while active:
        widths = trial.widths(active)
        failure = trial.run(widths, attributes_under(repairs, widths))
        if failure is None:
            break
        if trial.compares and not held and not repairs and trial.run(trial.widths([]), {}):
            # Two runs of the same model differ: their operations tell nothing about a cut.
            trial = replace(trial, compares=False)
            continue
        better = find_repairs(trial, failure, widths, repairs)
        if better is not repairs:
            repairs = better
            continue
        blamed = trial.at_fault(failure, active, partial(attributes_under, repairs))
        blamed |= _alike(trial, failure, blamed) & active
        held |= dict.fromkeys(blamed, failure.reason)
        active -= blamed
    return Settled(repairs, held)


def _alike(trial: Trial, failure: Failure, blamed: set[int]) -> set[int]:
    """Return the groups that stand in other modules where the blamed ones stand in the failing."""
    if failure.operation is None:
        return set()
    places = [
        place
        for place, axis in enumerate(trial.all_axes(failure.operation))
        if trial.groups_of(axis) and trial.groups_of(axis) <= blamed
    ]
    return {
        group
        for other in trial.alike(failure.operation)
        for place in places
        for group in trial.groups_of(trial.all_axes(other)[place])
    }


def find_repairs(
    trial: Trial, failure: Failure, widths: Widths, repairs: tuple[Repair, ...]
) -> tuple[Repair, ...]:
    """Return ``repairs`` with those added that get a trial run past ``failure``; or no others."""
    if failure.operation is None:
        return repairs
    for candidates in _choices(trial, failure.operation, widths):
        everywhere = (*_elsewhere(trial, failure.operation, candidates), *candidates)
        for choice in (everywhere, candidates):
            combined = merged(repairs, choice)
            later = trial.run(widths, attributes_under(combined, widths))
            if later is None or later.position > failure.position:
                return combined
            if len(choice) == len(candidates):
                break
    return repairs


def _elsewhere(
    trial: Trial, operation: Operation, candidates: tuple[Repair, ...]
) -> Iterator[Repair]:
    """Yield the repairs that correspond to ``candidates`` in other modules of the same type."""
    place_of = {id(axis): place for place, axis in enumerate(trial.nearby_axes(operation))}
    for other in trial.alike(operation):
        axes = trial.nearby_axes(other)
        for repair in candidates:
            up = operation.module.count('.') - repair.module.count('.')
            path = '.'.join(other.module.split('.')[: len(other.module.split('.')) - up])
            numbers = _numbers(vars(trial.model.get_submodule(path)).get(repair.attribute))
            found = tuple(
                None if axis is None else axes[place_of[id(axis)]] for axis in repair.axes
            )
            if numbers is None or len(numbers) != len(found):
                continue
            sizes = [axis.size for axis in found if axis is not None]
            if sizes == [n for n, axis in zip(numbers, found, strict=True) if axis is not None]:
                yield Repair(path, repair.attribute, found, numbers, repair.container)


def merged(repairs: tuple[Repair, ...], more: tuple[Repair, ...]) -> tuple[Repair, ...]:
    """Return both, the later of two for the same attribute."""
    by_place = {(repair.module, repair.attribute): repair for repair in (*repairs, *more)}
    return tuple(by_place.values())


def attributes_under(repairs: tuple[Repair, ...], widths: Widths) -> Attributes:
    """Return the attributes that repairs set under a choice of units."""
    return {(r.module, r.attribute): r.value(widths) for r in repairs}


def _choices(trial: Trial, operation: Operation, widths: Widths) -> Iterator[tuple[Repair, ...]]:
    """Yield sets of candidates, the likeliest first: all of a module at once, then few."""
    axes = [axis for axis in trial.nearby_axes(operation) if widths(axis) != axis.size]
    path = operation.module
    while True:
        candidates = list(_candidates(trial.model, path, axes))
        if candidates:
            yield tuple(candidates)
            for count in range(1, min(_MOST_TOGETHER, len(candidates) - 1) + 1):
                yield from combinations(candidates, count)
        if not path:
            return
        path = path.rpartition('.')[0]


def _candidates(model: nn.Module, path: str, axes: list[Axis]) -> Iterator[Repair]:
    by_size: dict[int, Axis] = {}
    for axis in axes:
        by_size.setdefault(axis.size, axis)
    for name, value in vars(model.get_submodule(path)).items():
        numbers = None if name in _HIDDEN else _numbers(value)
        if numbers is None:
            continue
        found = tuple(by_size.get(number) for number in numbers)
        if any(axis is not None for axis in found):
            yield Repair(path, name, found, numbers, type(value))


def _numbers(value: Any) -> tuple[int, ...] | None:
    """Return an attribute's integers; None if it holds anything else."""
    if type(value) is int:
        return (value,)
    if type(value) in (list, tuple) and value and all(type(n) is int for n in value):
        return tuple(value)
    return None
