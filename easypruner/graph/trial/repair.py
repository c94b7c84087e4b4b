"""Repair: integers that modules hold are set to the widths that a cut gives them.

A candidate is an attribute of the module whose forward failed that equals a width which the cut
changes. It is kept if the trial run then gets past the failing operation, and at last through.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, cycle
from operator import is_
from typing import Any

from torch import nn

from easypruner.graph.coupling.axes import Axis
from easypruner.graph.coupling.cost import AxisSizes, AxisTable
from easypruner.graph.coupling.groups import Partition
from easypruner.graph.recording.attributes import Attributes
from easypruner.graph.recording.tape import Operation
from easypruner.graph.trial.expected import outwards
from easypruner.graph.trial.trial import Failure, Trial, Widths

_HIDDEN = ('_parameters', '_buffers', '_modules', '_version')
_MOST_TOGETHER = 2
_MOST_TRIED = 8
_SMALL = 8


@dataclass(frozen=True, eq=False)
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
    def build(cls, repairs: tuple[Repair, ...], parts: Partition) -> AttributeModel:
        """Number the axes of ``repairs`` and find their sizes under any choice of units."""
        table = AxisTable()
        numbers = tuple(
            tuple(None if axis is None else table.number_of(axis) for axis in repair.axes)
            for repair in repairs
        )
        return cls(repairs, table.find_sizes(parts), numbers)

    def __call__(self, units: Sequence[int]) -> Attributes:
        """Return the values where each group keeps the given number of units."""
        sizes = self.sizes(units).tolist()
        return {
            (repair.module, repair.attribute): repair.filled(
                [None if number is None else sizes[number] for number in numbers]
            )
            for repair, numbers in zip(self.repairs, self.numbers, strict=True)
        }


def known_numbers(trial: Trial) -> Iterator[Repair]:
    """Yield the attributes that the rules know to follow an axis: the groups of convolutions."""
    for width in trial.coupling.tally.widths:
        value = vars(trial.rehearsal.modules[width.module]).get(width.attribute)
        if type(value) is int and value == width.axis.size:
            yield Repair(width.module, width.attribute, (width.axis,), (value,), int)


def find_repairs(
    trial: Trial, failure: Failure, widths: Widths, repairs: tuple[Repair, ...]
) -> tuple[Repair, ...]:
    """Return ``repairs`` with those added that get a trial run past ``failure``; or no others.

    An attribute may equal a width by chance. So unless all candidates of a module together bring
    the run to its end, the choice that gets it furthest is taken.
    """
    for operation in (failure.operation, failure.earlier):
        if operation is not None:
            better = _best(trial, operation, failure, widths, repairs)
            if better is not repairs:
                return better
    return repairs


def _best(
    trial: Trial,
    operation: Operation,
    failure: Failure,
    widths: Widths,
    repairs: tuple[Repair, ...],
) -> tuple[Repair, ...]:
    """Return the repairs at an operation that get a trial run furthest."""
    best, furthest = repairs, failure.position
    for count, candidates in enumerate(_choices(trial, operation, widths)):
        if count >= _MOST_TRIED and best is not repairs:
            break
        combined, reached = _extend(trial, operation, failure, widths, repairs, candidates)
        sparing = tuple(filter(None, map(_without_small, candidates)))
        if sparing and sparing != candidates and (reached is None or reached > failure.position):
            fewer, reached_by_fewer = _extend(trial, operation, failure, widths, repairs, sparing)
            worse = reached_by_fewer is not None and (reached is None or reached_by_fewer < reached)
            if not worse:
                combined, reached = fewer, reached_by_fewer
        if reached is None:
            return combined
        if reached > furthest:
            best, furthest = combined, reached
    return best


def _without_small(repair: Repair) -> Repair | None:
    """Return a repair without small numbers, which equal a width by chance: strides, kernels."""
    axes = tuple(None if axis is None or axis.size < _SMALL else axis for axis in repair.axes)
    if all(map(is_, axes, repair.axes)):
        return repair
    return replace(repair, axes=axes) if any(axis is not None for axis in axes) else None


def _extend(
    trial: Trial,
    operation: Operation,
    failure: Failure,
    widths: Widths,
    repairs: tuple[Repair, ...],
    candidates: tuple[Repair, ...],
) -> tuple[tuple[Repair, ...], int | None]:
    """Add candidates, in all modules alike if that helps; return where a run then fails."""
    elsewhere = tuple(_elsewhere(trial, operation, candidates))
    combined = merged(repairs, (*elsewhere, *candidates))
    later = trial.run(widths, attributes_under(combined, widths))
    if elsewhere and later is not None and later.position <= failure.position:
        combined = merged(repairs, candidates)
        later = trial.run(widths, attributes_under(combined, widths))
    return combined, None if later is None else later.position


def _elsewhere(
    trial: Trial, operation: Operation, candidates: tuple[Repair, ...]
) -> Iterator[Repair]:
    """Yield the repairs that correspond to ``candidates`` in other modules of the same type."""
    place_of: dict[Axis, int] = {}
    for place, axis in enumerate(trial.script.axes_about(operation)):
        place_of.setdefault(axis, place)
    for other in trial.script.alike(operation):
        axes = trial.script.axes_about(other)
        for repair in candidates:
            if any(axis is not None and place_of[axis] >= len(axes) for axis in repair.axes):
                continue
            path = outwards(other.module, _depth(operation.module) - _depth(repair.module))
            numbers = _numbers(vars(trial.model.get_submodule(path)).get(repair.attribute))
            found = tuple(None if axis is None else axes[place_of[axis]] for axis in repair.axes)
            if numbers is None or len(numbers) != len(found):
                continue
            sizes = [axis.size for axis in found if axis is not None]
            if sizes == [n for n, axis in zip(numbers, found, strict=True) if axis is not None]:
                yield Repair(path, repair.attribute, found, numbers, repair.container)


def _depth(path: str) -> int:
    return path.count('.') + 1 if path else 0


def merged(repairs: tuple[Repair, ...], more: tuple[Repair, ...]) -> tuple[Repair, ...]:
    """Return both, the later of two for the same attribute."""
    by_place = {(repair.module, repair.attribute): repair for repair in (*repairs, *more)}
    return tuple(by_place.values())


def attributes_under(repairs: tuple[Repair, ...], widths: Widths) -> Attributes:
    """Return the attributes that repairs set under a choice of units."""
    return {(r.module, r.attribute): r.value(widths) for r in repairs}


def _choices(trial: Trial, operation: Operation, widths: Widths) -> Iterator[tuple[Repair, ...]]:
    """Yield sets of candidates, the likeliest first: all of a module at once, then few."""
    axes = [axis for axis in trial.script.axes_near(operation) if widths(axis) != axis.size]
    about = [axis for axis in trial.script.axes_about(operation) if widths(axis) != axis.size]
    path = operation.module
    while True:
        by_attribute = [list(found) for found in _candidates(trial.model, path, axes, widths)]
        likeliest = tuple(found[0] for found in by_attribute)
        if likeliest:
            yield likeliest
        if path == operation.module:
            # Some numbers may be widths that are met elsewhere in the module.
            met = tuple(next(f) for f in _candidates(trial.model, path, about, widths))
            if met:
                yield met
        if likeliest:
            every = [repair for found in by_attribute for repair in found]
            for count in range(1, min(_MOST_TOGETHER, len(by_attribute)) + 1):
                yield from (
                    choice
                    for choice in combinations(every, count)
                    if len({repair.attribute for repair in choice}) == count
                )
        if not path:
            break
        path = path.rpartition('.')[0]
    for part in trial.script.recent_parts(operation):
        found = tuple(next(f) for f in _candidates(trial.model, part, axes, widths))
        if found:
            yield found


def _candidates(
    model: nn.Module, path: str, axes: list[Axis], widths: Widths
) -> Iterator[Iterator[Repair]]:
    """Yield, for each attribute that holds sizes of ``axes``, what it may follow."""
    by_size: dict[int, dict[Axis, None]] = {}
    for axis in axes:
        by_size.setdefault(axis.size, {})[axis] = None
    for name, value in vars(model.get_submodule(path)).items():
        numbers = None if name in _HIDDEN else _numbers(value)
        if numbers is not None and any(number in by_size for number in numbers):
            yield (
                Repair(path, name, found, numbers, type(value))
                for found in _assignments(numbers, by_size, widths)
            )


def _assignments(
    numbers: tuple[int, ...], by_size: Mapping[int, Iterable[Axis]], widths: Widths
) -> Iterator[tuple[Axis | None, ...]]:
    """Yield the axes that numbers may follow: several of one size in the order of the axes.

    A number alone may follow any axis of its size; those that a cut leaves equally wide are one.
    """
    if len(numbers) == 1:
        different: dict[int, Axis] = {}
        for axis in by_size[numbers[0]]:
            different.setdefault(widths(axis), axis)
        yield from ((axis,) for axis in different.values())
        return
    turns = {size: cycle(axes) for size, axes in by_size.items()}
    yield tuple(next(turns[number]) if number in turns else None for number in numbers)


def _numbers(value: Any) -> tuple[int, ...] | None:
    """Return an attribute's integers; None if it holds anything else."""
    if type(value) is int:
        return (value,)
    if type(value) in (list, tuple) and value and all(type(n) is int for n in value):
        return tuple(value)
    return None
