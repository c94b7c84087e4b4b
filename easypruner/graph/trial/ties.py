"""Ties: which two widths code derives from each other is found by trials that couple them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, product

from easypruner.graph.coupling.axes import Axis
from easypruner.graph.recording.tape import Operation
from easypruner.graph.trial.expected import Location
from easypruner.graph.trial.repair_search import Cause, find_repairs
from easypruner.graph.trial.tie import Tie, can_go
from easypruner.graph.trial.trace_check import progress_of
from easypruner.graph.trial.trial import Trial
from easypruner.graph.trial.widths import Repairs

_MOST_UP = 2
_MOST_TRIED = 16
_MOST_WITH_REPAIRS = 32
_MOST_BEHIND = 4

_Kind = tuple[frozenset[int], int]
"""The groups that have channels in an axis, and its size."""


def find_tie(trial: Trial, cause: Cause, repairs: Repairs) -> tuple[Trial, Repairs] | None:
    """Return a trial with a tie that gets past a failure, and the repairs that it needs.

    The edges of the tie are then part of the coupling. A tie is tried on all modules of the type
    first, then on the one that failed. If none helps alone, each is tried with more repairs, those
    that change how the operation fails before the others.

    Args:
        trial: runs the trials.
        cause: the failure of the last one, and what it may depend on.
        repairs: the repairs of that trial.
    """
    operation = cause.failure.operation
    if operation is None:
        return None
    candidates = sorted(_candidates(trial, operation), key=lambda t: t.indices(trial, operation))
    sorted_ones = [
        replace(tie, by_unit=True) for tie in candidates if tie.fits_evenly(trial, operation)
    ]
    best, noticed = _find_best(trial, candidates, cause, repairs)
    if best is None:
        likelier = sorted(candidates, key=lambda tie: tie not in noticed)
        best, _ = _find_best(trial, likelier, cause, repairs, repairing=True)
    if best is None:
        best, _ = _find_best(trial, sorted_ones, cause, repairs)
    if best is not None:
        _couple(trial, best.tie, best.operations, binding=True)
        return trial.regroup(), best.repairs
    return _find_tie_to_output(trial, cause, repairs)


def _find_tie_to_output(
    trial: Trial, cause: Cause, repairs: Repairs
) -> tuple[Trial, Repairs] | None:
    """Return a trial in which a width stays because code derives it from that of an output.

    Outputs stay, so no cut shows that. It is tried as if they did not.
    """
    operation = cause.failure.operation
    assert operation is not None, 'a failure behind the last operation has no axes'
    other = trial.without_outputs()
    if other.parts.group_of.size == trial.parts.group_of.size:
        return None
    candidates = [
        tie
        for tie in _candidates(other, operation)
        if (wide := trial.expected.find_axis(operation, tie.wide)) is not None
        and not trial.groups_of(wide)
        and all(
            (narrow := trial.expected.find_axis(operation, location)) is not None
            and can_go(trial, narrow)
            for location in tie.narrow
        )
    ]
    best, _ = _find_best(other, candidates, cause, repairs)
    if best is None:
        return None
    _couple(other, best.tie, best.operations, binding=True)
    return trial.regroup(), repairs


def _find_best(
    trial: Trial,
    candidates: Sequence[Tie],
    cause: Cause,
    repairs: Repairs,
    repairing: bool = False,
) -> tuple[_Attempt | None, list[Tie]]:
    """Return the tie with which a trial gets furthest, or the first that leaves the module.

    A try with repairs takes many trials. So there are few of them, and few behind one that helps.

    Returns:
        the attempt, None if no tie helps; and the ties that change how the operation fails.
    """
    operation = cause.failure.operation
    assert operation is not None, 'a failure behind the last operation has no axes'
    alike = trial.expected.alike(operation)
    scopes = [[operation, *alike], [operation]] if alike else [[operation]]
    best: _Attempt | None = None
    noticed: dict[Tie, None] = {}
    idle: set[tuple[Location, tuple[Location | int, ...]]] = set()
    left = _MOST_WITH_REPAIRS if repairing else len(candidates) * len(scopes)
    for tie, operations in product(candidates, scopes):
        if not left:
            break
        left -= 1
        # Axes that the operation does not notice will not help in another order or at fewer places.
        if (tie.wide, tie.narrow) in idle:
            continue
        attempt = _try(trial, tie, operations, cause, repairs, repairing)
        if attempt is None:
            continue
        if attempt.text == cause.failure.text:
            idle.add((tie.wide, tie.narrow))
        else:
            noticed[tie] = None
        helps = attempt.progress > cause.failure.position
        if helps and (best is None or attempt.progress > best.progress):
            best = attempt
            left = min(left, _MOST_BEHIND) if repairing else left
        if best is not None and best.left_module:
            break
    return best, list(noticed)


@dataclass(frozen=True)
class _Attempt:
    """What became of a trial with a tie.

    Attributes:
        tie: the tie.
        operations: the operations at which it couples axes.
        repairs: the repairs that it needs.
        progress: the position at which the trial fails then.
        text: how it fails; empty if it does not.
        left_module: whether it got out of the module that failed. Another tie may get past a check
            in the module only to fail a few lines on.
    """

    tie: Tie
    operations: Sequence[Operation]
    repairs: Repairs
    progress: float
    text: str
    left_module: bool


def _try(
    trial: Trial,
    tie: Tie,
    operations: Sequence[Operation],
    cause: Cause,
    repairs: Repairs,
    repairing: bool,
) -> _Attempt | None:
    """Try a tie, with more repairs if ``repairing``.

    Returns:
        what became of it; None if there are no such repairs, or if what it couples cannot be cut.
    """
    edges, failure = trial.coupling.edges, cause.failure
    with contextlib.ExitStack() as undo:
        undo.callback(edges.revert, edges.mark())
        _couple(trial, tie, operations)
        tied = trial.regroup()
        if not _is_trial(tied, tie, operations):
            return None
        # What an output really keeps is cut only together with what may follow it.
        cut = _groups_of(tied, tie, operations) if tied.lifted else None
        widths = tied.choose_widths(failure.round_number, cut)
        found = find_repairs(tied, cause, widths, repairs) if repairing else repairs
        if found is None:
            return None
        later = tied.run(widths, found)
        if progress_of(later) > failure.position:
            # Widths that are not tied may fit by chance, but seldom in two rounds.
            again = tied.run(tied.choose_widths(failure.round_number + 1, cut), found)
            if again is not None and again.position == failure.position:
                later = again
    path = operations[0].module
    failed = later.operation if later is not None else None
    inside = failed is not None and f'{failed.module}.'.startswith(f'{path}.')
    text = later.text if later is not None else ''
    return _Attempt(tie, operations, found, progress_of(later), text, left_module=not inside)


def _couple(trial: Trial, tie: Tie, operations: Sequence[Operation], binding: bool = False) -> None:
    # That the other modules have the same tie is a guess, which must not freeze anything.
    for operation in operations:
        tie.couple(trial, operation, binding and operation is operations[0])


def _is_trial(tied: Trial, tie: Tie, operations: Iterable[Operation]) -> bool:
    """Return whether all that a tie couples can be cut. No trial fails at what cannot.

    Where units are joined whatever their widths are, one of other widths may be left over.
    """
    several = [tied.parts.sizes[group] > 1 for group in _groups_of(tied, tie, operations)]
    return any(several) if tie.by_unit else bool(several) and all(several)


def _groups_of(tied: Trial, tie: Tie, operations: Iterable[Operation]) -> set[int]:
    """Return the groups that have channels in the wide axis of a tie."""
    wide = (tied.expected.find_axis(operation, tie.wide) for operation in operations)
    return {group for axis in wide if axis is not None for group in tied.groups_of(axis)}


def _candidates(trial: Trial, operation: Operation) -> Iterator[Tie]:
    """Yield ties of an axis in or around the module with one near the operation, then behind it.

    A module may check its widths before it uses them.
    """
    near: list[tuple[Location | int, Axis]] = list(enumerate(trial.expected.axes_near[operation]))
    tried: set[tuple[_Kind, tuple[Location | int, ...]]] = set()
    for found in (near, trial.expected.behind(operation)):
        yield from islice(_pairs(trial, operation, found, tried), _MOST_TRIED)


def _pairs(
    trial: Trial,
    operation: Operation,
    found: Iterable[tuple[Location | int, Axis]],
    tried: set[tuple[_Kind, tuple[Location | int, ...]]],
) -> Iterator[Tie]:
    """Yield ties of an axis in or around the module with those found that it may follow.

    Args:
        trial: knows the groups.
        operation: the operation that failed.
        found: the axes that may be narrow, with their locations.
        tried: the pairs that were yielded before; more are added.
    """
    narrow: dict[_Kind, Location | int] = {}
    for location, axis in found:
        if axis.size > 1 and can_go(trial, axis):
            narrow.setdefault(_kind(trial, axis), location)
    for wide, axis in trial.expected.around(operation, _MOST_UP):
        if axis.size < 2 or not can_go(trial, axis):
            continue
        kind = _kind(trial, axis)
        for size, chosen in _fitting(kind, narrow):
            if (kind, chosen) not in tried:
                tried.add((kind, chosen))
                yield Tie(wide, chosen, inner=True)
                if axis.size > size:
                    yield Tie(wide, chosen, inner=False)


def _fitting(
    kind: _Kind, narrow: Mapping[_Kind, Location | int]
) -> Iterator[tuple[int, tuple[Location | int, ...]]]:
    """Yield (size, locations) of the axes that may follow a wide one: all of a size, then each.

    Code may derive several widths from one.
    """
    groups, width = kind
    by_size: dict[int, list[Location | int]] = {}
    for (others, size), location in narrow.items():
        if width % size == 0 and not groups & others:
            by_size.setdefault(size, []).append(location)
    for size, found in by_size.items():
        yield size, tuple(found)
        if len(found) > 1:
            yield from ((size, (location,)) for location in found)


def _kind(trial: Trial, axis: Axis) -> _Kind:
    return frozenset(trial.groups_of(axis)), axis.size
