"""Ties: widths that a module's code derives from another's, as in ``channels // self.num_heads``.

Such code is right only where both widths shrink in proportion. Which widths those are is not on
the tape. So pairs of them are coupled index by index, and a pair is kept if the trial run then
gets past the operation that failed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, product

from easypruner.graph.coupling.axes import Axis
from easypruner.graph.recording.tape import Operation
from easypruner.graph.trial.expected import Location
from easypruner.graph.trial.repair import Repair, attributes_under, find_repairs
from easypruner.graph.trial.trial import Failure, Trial

_MOST_UP = 2
_MOST_TRIED = 16


@dataclass(frozen=True)
class Tie:
    """Axes whose widths keep their ratio.

    Attributes:
        wide: the axis of more indices, relative to the operation that failed.
        narrow: the others, all of one size: the place of each among the axes near that operation,
            or where it is met later.
        inner: whether the narrow axis varies faster within the wide one.
    """

    wide: Location
    narrow: tuple[int | Location, ...]
    inner: bool

    def couple(self, trial: Trial, operation: Operation) -> None:
        """Couple the axes index by index, where they are free and fit."""
        wide = trial.script.at(operation, self.wide)
        if wide is None or not _is_free(trial, wide):
            return
        for place in self.narrow:
            narrow = _axis_at(trial, operation, place)
            if narrow is None or not _is_free(trial, narrow) or wide.size % narrow.size:
                continue
            times = wide.size // narrow.size
            follows = narrow.tiled(times) if self.inner else narrow.repeated(times)
            trial.coupling.edges.couple(wide, follows)


def _axis_at(trial: Trial, operation: Operation, place: int | Location) -> Axis | None:
    if isinstance(place, Location):
        return trial.script.at(operation, place)
    near = trial.script.axes_near(operation)
    return near[place] if place < len(near) else None


def find_tie(
    trial: Trial, failure: Failure, repairs: tuple[Repair, ...]
) -> tuple[Trial, tuple[Repair, ...]] | None:
    """Return the trial under a tie that gets a run past ``failure``, and the repairs it needs.

    The tie's edges are then part of the coupling. What holds for one module is tried on all of
    its type at once. Where no tie helps alone, each is tried with further repairs.
    """
    operation = failure.operation
    if operation is None:
        return None
    alike = trial.script.alike(operation)
    places = [[operation, *alike], [operation]] if alike else [[operation]]
    candidates = list(_candidates(trial, operation))
    for mends in (False, True):
        best: _Tied | None = None
        for tie, operations in product(candidates, places):
            tried = _try(trial, tie, operations, failure, repairs, mends)
            if tried is not None and (best is None or tried.reached > best.reached):
                best = tried
            if best is not None and best.left:
                break
        if best is not None:
            for place in best.operations:
                best.tie.couple(trial, place)
            return trial.regrouped(), best.repairs
    return None


@dataclass(frozen=True)
class _Tied:
    """A tie that gets a trial past a failure.

    Attributes:
        tie: at
        operations: these operations.
        repairs: that it needs.
        reached: the position at which the run fails then.
        left: whether it got out of the module that failed: another tie may get past a check in it,
            and fail a few lines on.
    """

    tie: Tie
    operations: list[Operation]
    repairs: tuple[Repair, ...]
    reached: int
    left: bool


def _try(
    trial: Trial,
    tie: Tie,
    operations: list[Operation],
    failure: Failure,
    repairs: tuple[Repair, ...],
    mends: bool,
) -> _Tied | None:
    """Try a tie, with further repairs if ``mends``; None where it does not get past ``failure``."""
    mark = trial.coupling.edges.mark()
    for place in operations:
        tie.couple(trial, place)
    tied = trial.regrouped()
    if _is_whole(tied, tie, operations):
        trial.coupling.edges.revert(mark)
        return None
    widths = tied.widths(turn=failure.turn)
    if mends:
        repairs, before = find_repairs(tied, failure, widths, repairs), repairs
    later = None
    if not mends or repairs is not before:
        later = tied.run(widths, attributes_under(repairs, widths))
    trial.coupling.edges.revert(mark)
    if mends and repairs is before:
        return None
    if later is None:
        return _Tied(tie, operations, repairs, len(trial.operations) + 1, left=True)
    if later.position <= failure.position:
        return None
    path = operations[0].module
    inside = later.operation is not None and (later.operation.module + '.').startswith(path + '.')
    return _Tied(tie, operations, repairs, later.position, left=not inside)


def _is_whole(tied: Trial, tie: Tie, operations: list[Operation]) -> bool:
    """Tell whether a tie leaves a group of one unit: what cannot be cut any more fails no trial."""
    for operation in operations:
        wide = tied.script.at(operation, tie.wide)
        groups = tied.groups_of(wide) if wide is not None else ()
        if any(tied.parts.sizes[group] == 1 for group in groups):
            return True
    return False


def _candidates(trial: Trial, operation: Operation) -> Iterator[Tie]:
    """Yield ties of an axis met in or around the module with one at the operation, then behind it.

    A module may check its widths before it uses them.
    """
    near: list[tuple[int | Location, Axis]] = list(enumerate(trial.script.axes_near(operation)))
    tried: set[tuple[frozenset[int], int, tuple[int | Location, ...]]] = set()
    for found in (near, trial.script.behind(operation)):
        yield from islice(_pairs(trial, operation, found, tried), _MOST_TRIED)


def _pairs(
    trial: Trial,
    operation: Operation,
    found: Iterable[tuple[int | Location, Axis]],
    tried: set[tuple[frozenset[int], int, tuple[int | Location, ...]]],
) -> Iterator[Tie]:
    narrow: dict[tuple[frozenset[int], int], int | Location] = {}
    for place, axis in found:
        if axis.size > 1 and _is_free(trial, axis):
            narrow.setdefault((_groups(trial, axis), axis.size), place)
    for location, axis in trial.script.around(operation, _MOST_UP):
        if axis.size < 2 or not _is_free(trial, axis):
            continue
        groups = _groups(trial, axis)
        for size, chosen in _fitting(groups, axis.size, narrow):
            if (groups, axis.size, chosen) not in tried:
                tried.add((groups, axis.size, chosen))
                yield Tie(location, chosen, inner=True)
                if axis.size > size:
                    yield Tie(location, chosen, inner=False)


def _fitting(
    groups: frozenset[int],
    width: int,
    narrow: Mapping[tuple[frozenset[int], int], int | Location],
) -> Iterator[tuple[int, tuple[int | Location, ...]]]:
    """Yield size and places of what may be tied to a width: all of a size together, then each.

    Code may derive several widths from one.
    """
    places: dict[int, list[int | Location]] = {}
    for (others, size), place in narrow.items():
        if width % size == 0 and not groups & others:
            places.setdefault(size, []).append(place)
    for size, found in places.items():
        yield size, tuple(found)
        if len(found) > 1:
            yield from ((size, (place,)) for place in found)


def _is_free(trial: Trial, axis: Axis) -> bool:
    return bool((axis.ids >= 0).all()) and bool((trial.parts.unit_of[axis.ids] >= 0).all())


def _groups(trial: Trial, axis: Axis) -> frozenset[int]:
    return frozenset(trial.groups_of(axis))
