"""The search for repairs: numbers of modules that the failing code reads and a cut changes.

A candidate is an attribute that equals a width and that the forward pass read before it failed:
of the module whose forward failed, of a module around it, or of one of its parts. It is kept if
the trial gets past the operation that failed with it, and does not without it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import combinations, cycle, islice

from easypruner.graph.coupling.axes import Axis
from easypruner.graph.recording.config_numbers import attribute_of, attributes_of, numbers_of
from easypruner.graph.recording.inventory import own_tensors
from easypruner.graph.recording.tape import Operation
from easypruner.graph.trial.expected import enclosing, outwards
from easypruner.graph.trial.reads import AT_LINE, IN_CALL, NEARNESS, Key, Reads
from easypruner.graph.trial.trace_check import Failure, progress_of
from easypruner.graph.trial.trial import Trial
from easypruner.graph.trial.widths import Repair, Repairs, Widths, join

_MOST_TOGETHER = 2
_MOST_TRIED = 8
_MOST_NUMBERS = 8
_FEW_NUMBERS = 4


@dataclass(frozen=True)
class Cause:
    """A failure, and what it may depend on.

    Attributes:
        failure: where the trial failed.
        reads: the numbers of modules that it had read by then.
        settled: attributes that other calls of the model need as they are.
    """

    failure: Failure
    reads: Reads
    settled: frozenset[Key] = field(default_factory=frozenset)


def find_repairs(trial: Trial, cause: Cause, widths: Widths, repairs: Repairs) -> Repairs | None:
    """Return ``repairs`` and more, with which a trial gets past a failure; None if none do.

    Of several candidates those are chosen with which the trial gets furthest. Then each number is
    left out once, and stays as it was if the trial gets as far without it.

    Args:
        trial: runs the trials.
        cause: the failure of the last one, and what it may depend on.
        widths: the widths of that trial.
        repairs: the repairs of that trial.
    """
    search = _Search(trial, cause, widths, repairs)
    operations = filter(None, (cause.failure.operation, cause.failure.earlier))
    return next(filter(None, map(search.find_at, operations)), None)


@dataclass(frozen=True)
class _Search:
    """A search for repairs with which a trial gets past a failure."""

    trial: Trial
    cause: Cause
    widths: Widths
    repairs: Repairs

    def find_at(self, operation: Operation) -> Repairs | None:
        """Return the repairs at an operation with which the trial gets furthest."""
        best: list[Repair] | None = None
        combined, furthest = self.repairs, float(self.cause.failure.position)
        for count, candidates in enumerate(self._choices(operation)):
            if count >= _MOST_TRIED and best is not None:
                break
            repairs, reached = self._try(operation, candidates)
            if reached > furthest:
                best, combined, furthest = candidates, repairs, reached
            if reached == math.inf:
                break
        if best is None:
            return None
        kept, combined, furthest = self._leave_out(operation, best, combined, furthest)
        return None if self._is_ambiguous(operation, kept, furthest) else combined

    def _leave_out(
        self, operation: Operation, candidates: list[Repair], combined: Repairs, furthest: float
    ) -> tuple[list[Repair], Repairs, float]:
        """Leave out the numbers that the trial does not need.

        Each number is left out once: those that were read far from the failure first, then small
        ones. Strides and kernel sizes are small, and often equal a width by chance.

        Returns:
            the candidates that are needed, number by number, the repairs with them, and how far the
            trial gets.
        """
        numbers = [number for repair in candidates for number in repair.split()]
        kept = numbers if len(numbers) <= _MOST_NUMBERS else candidates
        for number in sorted(kept, key=self._doubt):
            fewer = [other for other in kept if other is not number]
            if fewer:
                repairs, reached = self._try(operation, fewer)
                if reached >= furthest:
                    kept, combined, furthest = fewer, repairs, reached
        return kept, combined, furthest

    def _is_ambiguous(self, operation: Operation, kept: list[Repair], furthest: float) -> bool:
        """Return whether another number that the failing line reads would do as well as a kept one.

        Then the trial does not show which of them is the width, as in ``self.kernel * self.width``.
        """
        for repair in kept:
            others = [other for other in kept if other is not repair]
            for rival in self._rivals(repair, kept):
                if self._try(operation, [*others, rival])[1] >= furthest:
                    return True
        return False

    def _rivals(self, repair: Repair, kept: Sequence[Repair]) -> Iterator[Repair]:
        """Yield repairs of other numbers that equal the one of a repair and were read with it."""
        axes = [axis for axis in repair.axes if axis is not None]
        if len(axes) > 1:
            return
        numbers, modules = self.trial.expected.numbers, self.trial.stand_ins.modules
        for path, name in self._keys(AT_LINE) - {other.key for other in kept}:
            found = numbers[path, name]
            for place, number in enumerate(found):
                if number == axes[0].size:
                    own = tuple(axes[0] if other == place else None for other in range(len(found)))
                    yield Repair(path, name, own, found, type(attribute_of(modules[path], name)))

    def _doubt(self, repair: Repair) -> tuple[int, int]:
        """Return a key by which the least likely repairs are sorted first."""
        sizes = (axis.size for axis in repair.axes if axis is not None)
        return -self.cause.reads[repair.key], max(sizes)

    def _try(self, operation: Operation, candidates: Sequence[Repair]) -> tuple[Repairs, float]:
        """Return the repairs with candidates added, and the position at which the trial fails.

        The corresponding repairs in other modules of the type are added as well if that helps.
        """
        position = self.cause.failure.position
        elsewhere = list(self._elsewhere(operation, candidates))
        combined = join(self.repairs, [*elsewhere, *candidates])
        reached = progress_of(self.trial.run(self.widths, combined))
        if elsewhere and reached <= position:
            combined = join(self.repairs, candidates)
            reached = progress_of(self.trial.run(self.widths, combined))
        return combined, reached

    def _elsewhere(self, operation: Operation, candidates: Sequence[Repair]) -> Iterator[Repair]:
        """Yield the repairs that correspond to candidates in other modules of the type.

        The trial has got past modules that ran before: what was repaired there stays as it is.
        """
        expected = self.trial.expected
        number_of: dict[Axis, int] = {}
        for number, axis in enumerate(expected.axes_about(operation)):
            number_of.setdefault(axis, number)
        near = [
            repair
            for repair in candidates
            if all(axis is None or axis in number_of for axis in repair.axes)
        ]
        for other in expected.alike(operation):
            axes = expected.axes_about(other)
            kept = self.cause.settled
            if not expected.is_later(other, operation):
                kept = kept.union(self.repairs)
            for repair in near:
                if any(axis is not None and number_of[axis] >= len(axes) for axis in repair.axes):
                    continue
                path = _counterpart(repair.module, operation, other)
                module = None if path is None else self.trial.stand_ins.modules.get(path)
                if path is None or module is None or (path, repair.attribute) in kept:
                    continue
                numbers = numbers_of(attribute_of(module, repair.attribute))
                found = tuple(
                    None if axis is None else axes[number_of[axis]] for axis in repair.axes
                )
                if numbers is None or len(numbers) != len(found):
                    continue
                pairs = zip(numbers, found, strict=True)
                if all(axis is None or axis.size == number for number, axis in pairs):
                    yield Repair(path, repair.attribute, found, numbers, repair.container)

    def _choices(self, operation: Operation) -> Iterator[list[Repair]]:
        """Yield sets of candidates once each: those that were read nearest to the failure first."""
        tried: set[frozenset[tuple[Key, tuple[Axis | None, ...]]]] = set()
        for nearness in NEARNESS:
            for choice in self._choices_of(operation, self._keys(nearness)):
                key = frozenset((repair.key, repair.axes) for repair in choice)
                if key not in tried:
                    tried.add(key)
                    yield choice

    def _keys(self, nearness: int) -> Set[Key]:
        """Return the attributes that were read as near to the failure, or nearer."""
        reads, settled = self.cause.reads.items(), self.cause.settled
        return {
            key: None for key, found in reads if found <= nearness and key not in settled
        }.keys()

    def _choices_of(self, operation: Operation, keys: Set[Key]) -> Iterator[list[Repair]]:
        """Yield sets of candidates, the likeliest first: all of a module at once, then few."""
        expected = self.trial.expected
        axes = [axis for axis in expected.axes_near[operation] if self._is_cut(axis)]
        about = [axis for axis in expected.axes_about(operation) if self._is_cut(axis)]
        around = enclosing(operation.module)
        for path in around:
            by_attribute = [list(found) for found in self._candidates(path, axes, keys)]
            if by_attribute:
                yield [found[0] for found in by_attribute]
            if path == operation.module:
                # Some numbers may be widths of other operations of the module, or one of them.
                for likeliest in self._likeliest(path, about, keys):
                    yield likeliest
                    yield from ([repair] for repair in likeliest[:_MOST_NUMBERS])
            every = [repair for found in by_attribute for repair in found]
            for count in range(1, min(_MOST_TOGETHER, len(by_attribute)) + 1):
                yield from (
                    list(choice)
                    for choice in combinations(every, count)
                    if len({repair.attribute for repair in choice}) == count
                )
            if path == operation.module:
                # A number near the failing line may be the width of what a later line takes apart.
                for found in self._candidates(path, about, keys & self._keys(IN_CALL)):
                    yield from ([repair] for repair in islice(found, 1, _MOST_NUMBERS))
        elsewhere = [path for path, _ in self._keys(IN_CALL) if path not in around]
        for path in dict.fromkeys([*expected.recent_parts(operation), *elsewhere]):
            yield from self._likeliest(path, axes, keys)
        near = frozenset(group for axis in axes for group in self.trial.groups_of(axis))
        for path in dict.fromkeys([*around, *elsewhere]):
            yield from self._likeliest(path, self._axes_of_groups(path, near), keys)

    def _axes_of_groups(self, path: str, near: frozenset[int]) -> list[Axis]:
        """Return the axes that are cut with some groups or a module's own tensors, of each size.

        Code may read a number before any operation has such a width, as where the width of a head
        decides how many frequencies there are; or the number may be that of a part, as of tokens
        that stand before a sequence.
        """
        expected, trial = self.trial.expected, self.trial
        start = f'{path}.' if path else ''
        names = (f'{start}{name}' for name, _ in own_tensors(trial.stand_ins.modules[path]))
        own = [axis for name in names for axis in expected.coupling.axes.of_parameter(name) or ()]
        groups = near.union(*map(trial.groups_of, own))
        found: dict[tuple[int, int], Axis] = {}
        for axis in (*own, *(expected.distinct_axes if groups else ())):
            if axis.size > 1 and self._is_cut(axis) and groups & trial.groups_of(axis):
                found.setdefault((axis.size, self.widths(axis)), axis)
        return list(found.values())

    def _is_cut(self, axis: Axis) -> bool:
        return self.widths(axis) != axis.size

    def _likeliest(self, path: str, axes: Sequence[Axis], keys: Set[Key]) -> Iterator[list[Repair]]:
        """Yield the likeliest repair of each attribute of a module, if there is any."""
        found = [next(repairs) for repairs in self._candidates(path, axes, keys)]
        if found:
            yield found

    def _candidates(
        self, path: str, axes: Sequence[Axis], keys: Set[Key]
    ) -> Iterator[Iterator[Repair]]:
        """Yield, for each attribute of a module that holds widths of ``axes``, its repairs.

        Args:
            path: the path of the module.
            axes: the axes that numbers may follow.
            keys: the attributes that may be candidates.
        """
        by_size: dict[int, dict[Axis, None]] = {}
        for axis in axes:
            by_size.setdefault(axis.size, {})[axis] = None
        for name, value in attributes_of(self.trial.stand_ins.modules[path]):
            numbers = numbers_of(value) if (path, name) in keys else None
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
        the first is tried. Of few numbers, such as height and width of an image, each may be the
        only one that follows an axis.
        """
        if len(numbers) == 1:
            different: dict[int, Axis] = {}
            for axis in by_size[numbers[0]]:
                different.setdefault(self.widths(axis), axis)
            yield from ((axis,) for axis in different.values())
            return
        in_turn = {size: cycle(axes) for size, axes in by_size.items()}
        found = [next(in_turn[number]) if number in in_turn else None for number in numbers]
        yield tuple(found)
        positions = [position for position, axis in enumerate(found) if axis is not None]
        if 1 < len(positions) <= _FEW_NUMBERS:
            for only in positions:
                first = next(iter(by_size[numbers[only]]))
                yield tuple(first if place == only else None for place in range(len(numbers)))


def _counterpart(path: str, operation: Operation, other: Operation) -> str | None:
    """Return the path of the module that is to another operation what one is to an operation.

    It must have the same part in which the operation runs: the axes of a last layer are not where
    those of a first one are.
    """
    around = enclosing(operation.module)
    if path in around:
        found = outwards(other.module, around.index(path))
        same = other.module.removeprefix(found) == operation.module.removeprefix(path)
        return found if same else None
    inside = path.removeprefix(f'{operation.module}.')
    return None if inside == path else f'{other.module}.{inside}'
