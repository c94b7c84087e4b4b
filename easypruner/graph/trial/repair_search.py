"""The search for repairs: attributes of modules that equal a width which a cut changes.

A candidate is an attribute of the module whose forward failed, of a module around it, or of one of
its parts. It is kept if the trial then gets past the operation that failed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, cycle

from easypruner.graph.coupling.axes import Axis
from easypruner.graph.recording.inventory import numbers_of
from easypruner.graph.recording.tape import Operation
from easypruner.graph.trial.expected import enclosing, outwards
from easypruner.graph.trial.trace_check import Failure, progress_of
from easypruner.graph.trial.trial import Trial
from easypruner.graph.trial.widths import Repair, Repairs, Widths, join

_HIDDEN = ('_parameters', '_buffers', '_modules', '_version')
_MOST_TOGETHER = 2
_MOST_TRIED = 8
_SMALL = 8


def find_known_repairs(trial: Trial) -> Repairs:
    """Return the repairs that rules have noted, such as the number of groups of a convolution."""
    found = []
    for width in trial.coupling.tally.widths:
        value = vars(trial.stand_ins.modules[width.module]).get(width.attribute)
        if type(value) is int and value == width.axis.size:
            found.append(Repair(width.module, width.attribute, (width.axis,), (value,), int))
    return join({}, found)


def find_repairs(
    trial: Trial, failure: Failure, widths: Widths, repairs: Repairs
) -> Repairs | None:
    """Return ``repairs`` and more, with which a trial gets past a failure; None if none do.

    An attribute may equal a width by chance. So of several candidates those are chosen with which
    the trial gets furthest.

    Args:
        trial: runs the trials.
        failure: the failure of the last one.
        widths: the widths of that trial.
        repairs: the repairs of that trial.
    """
    search = _Search(trial, failure, widths, repairs)
    operations = filter(None, (failure.operation, failure.earlier))
    return next(filter(None, map(search.find_at, operations)), None)


@dataclass(frozen=True)
class _Search:
    """A search for repairs with which a trial gets past a failure."""

    trial: Trial
    failure: Failure
    widths: Widths
    repairs: Repairs

    def find_at(self, operation: Operation) -> Repairs | None:
        """Return the repairs at an operation with which the trial gets furthest."""
        best, furthest = None, float(self.failure.position)
        for count, candidates in enumerate(self._choices(operation)):
            if count >= _MOST_TRIED and best is not None:
                break
            combined, reached = self._try(operation, candidates)
            larger = [found for found in map(_without_small, candidates) if found is not None]
            if larger and larger != candidates and reached > self.failure.position:
                fewer, reached_by_fewer = self._try(operation, larger)
                if reached_by_fewer >= reached:
                    combined, reached = fewer, reached_by_fewer
            if reached > furthest:
                best, furthest = combined, reached
            if reached == math.inf:
                break
        return best

    def _try(self, operation: Operation, candidates: Sequence[Repair]) -> tuple[Repairs, float]:
        """Return the repairs with candidates added, and the position at which the trial fails.

        The corresponding repairs in other modules of the type are added as well if that helps.
        """
        elsewhere = list(self._elsewhere(operation, candidates))
        combined = join(self.repairs, [*elsewhere, *candidates])
        reached = progress_of(self.trial.run(self.widths, combined))
        if elsewhere and reached <= self.failure.position:
            combined = join(self.repairs, candidates)
            reached = progress_of(self.trial.run(self.widths, combined))
        return combined, reached

    def _elsewhere(self, operation: Operation, candidates: Sequence[Repair]) -> Iterator[Repair]:
        """Yield the repairs that correspond to candidates in other modules of the type."""
        expected = self.trial.expected
        number_of: dict[Axis, int] = {}
        for number, axis in enumerate(expected.axes_about(operation)):
            number_of.setdefault(axis, number)
        for other in expected.alike(operation):
            axes = expected.axes_about(other)
            for repair in candidates:
                if any(axis is not None and number_of[axis] >= len(axes) for axis in repair.axes):
                    continue
                up = len(enclosing(operation.module)) - len(enclosing(repair.module))
                path = outwards(other.module, up)
                numbers = numbers_of(vars(self.trial.stand_ins.modules[path]).get(repair.attribute))
                found = tuple(
                    None if axis is None else axes[number_of[axis]] for axis in repair.axes
                )
                if numbers is None or len(numbers) != len(found):
                    continue
                pairs = zip(numbers, found, strict=True)
                if all(axis is None or axis.size == number for number, axis in pairs):
                    yield Repair(path, repair.attribute, found, numbers, repair.container)

    def _choices(self, operation: Operation) -> Iterator[list[Repair]]:
        """Yield sets of candidates, the likeliest first: all of a module at once, then few."""
        expected = self.trial.expected
        axes = [axis for axis in expected.axes_near[operation] if self._is_cut(axis)]
        about = [axis for axis in expected.axes_about(operation) if self._is_cut(axis)]
        for path in enclosing(operation.module):
            by_attribute = [list(found) for found in self._candidates(path, axes)]
            if by_attribute:
                yield [found[0] for found in by_attribute]
            if path == operation.module:
                # Some numbers may be widths of other operations of the module.
                yield from self._likeliest(path, about)
            every = [repair for found in by_attribute for repair in found]
            for count in range(1, min(_MOST_TOGETHER, len(by_attribute)) + 1):
                yield from (
                    list(choice)
                    for choice in combinations(every, count)
                    if len({repair.attribute for repair in choice}) == count
                )
        for part in expected.recent_parts(operation):
            yield from self._likeliest(part, axes)

    def _is_cut(self, axis: Axis) -> bool:
        return self.widths(axis) != axis.size

    def _likeliest(self, path: str, axes: Sequence[Axis]) -> Iterator[list[Repair]]:
        """Yield the likeliest repair of each attribute of a module, if there is any."""
        found = [next(repairs) for repairs in self._candidates(path, axes)]
        if found:
            yield found

    def _candidates(self, path: str, axes: Sequence[Axis]) -> Iterator[Iterator[Repair]]:
        """Yield, for each attribute of a module that holds widths of ``axes``, its repairs."""
        by_size: dict[int, dict[Axis, None]] = {}
        for axis in axes:
            by_size.setdefault(axis.size, {})[axis] = None
        for name, value in vars(self.trial.stand_ins.modules[path]).items():
            numbers = None if name in _HIDDEN else numbers_of(value)
            if numbers is not None and any(number in by_size for number in numbers):
                yield (
                    Repair(path, name, found, numbers, type(value))
                    for found in self._assignments(numbers, by_size)
                )

    def _assignments(
        self, numbers: tuple[int, ...], by_size: Mapping[int, Iterable[Axis]]
    ) -> Iterator[tuple[Axis | None, ...]]:
        """Yield the axes that numbers may follow: several of one size in the order of the axes.

        A single number may follow any axis of its size. Of axes with the same width in this trial,
        the first is tried.
        """
        if len(numbers) == 1:
            different: dict[int, Axis] = {}
            for axis in by_size[numbers[0]]:
                different.setdefault(self.widths(axis), axis)
            yield from ((axis,) for axis in different.values())
            return
        in_turn = {size: cycle(axes) for size, axes in by_size.items()}
        yield tuple(next(in_turn[number]) if number in in_turn else None for number in numbers)


def _without_small(repair: Repair) -> Repair | None:
    """Return a repair without its small numbers; None if it has no others.

    Strides and kernel sizes are small, and often equal a width by chance.
    """
    axes = tuple(None if axis is None or axis.size < _SMALL else axis for axis in repair.axes)
    if axes == repair.axes:
        return repair
    return replace(repair, axes=axes) if any(axis is not None for axis in axes) else None
