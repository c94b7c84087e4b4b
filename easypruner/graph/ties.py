"""Ties: widths that a module's code derives from another's, as in ``channels // self.num_heads``.

Such code is right only where both widths shrink in proportion. Which widths those are is not on
the tape. So pairs of them are coupled index by index, and a pair is kept if the trial run then
gets past the operation that failed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from easypruner.graph.attributes import Attributes
from easypruner.graph.cost import counted_axes
from easypruner.graph.coupling import Axis
from easypruner.graph.groups import Partition, partition
from easypruner.graph.proof import Failure, Trial, Widths
from easypruner.graph.script import Location
from easypruner.graph.tape import Operation

_MOST_UP = 2
_MOST_TRIED = 12


@dataclass(frozen=True)
class Tie:
    """Two axes whose widths keep their ratio.

    Attributes:
        wide: the axis of more indices, relative to the operation that failed.
        narrow: the place of the other among the axes near that operation.
        inner: whether the narrow axis varies faster within the wide one.
    """

    wide: Location
    narrow: int
    inner: bool

    def axes(self, trial: Trial, operation: Operation) -> tuple[Axis, Axis] | None:
        """Return both axes for an operation; None where they are not free or do not fit."""
        near = trial.script.axes_near(operation)
        wide = trial.script.at(operation, self.wide)
        if wide is None or self.narrow >= len(near):
            return None
        narrow = near[self.narrow]
        if not (_is_free(wide) and _is_free(narrow)) or wide.size % narrow.size:
            return None
        return wide, narrow

    def couple(self, trial: Trial, operation: Operation) -> None:
        """Couple the axes index by index."""
        axes = self.axes(trial, operation)
        if axes is not None:
            wide, narrow = axes
            rows = wide.reshape(-1, narrow.size) if self.inner else wide.reshape(narrow.size, -1).T
            for row in rows:
                trial.coupling.couple(row, narrow)


def find_tie(
    trial: Trial, failure: Failure, attributes: Callable[[Widths], Attributes]
) -> Partition | None:
    """Return the partition under a tie that gets a trial run past ``failure``, if there is one.

    The tie's edges are then part of the coupling. What holds for one module is tried on all of
    its type at once.
    """
    operation = failure.operation
    if operation is None:
        return None
    alike = trial.script.alike(operation)
    for tie in _candidates(trial, operation):
        for operations in ([operation, *alike], [operation]) if alike else ([operation],):
            mark = trial.coupling.mark()
            for place in operations:
                tie.couple(trial, place)
            parts = partition(trial.coupling, counted_axes(trial.coupling))
            tied = trial.among(parts)
            widths = tied.widths()
            later = tied.run(widths, attributes(widths))
            if later is None or later.position > failure.position:
                return parts
            trial.coupling.revert(mark)
    return None


def _candidates(trial: Trial, operation: Operation) -> Iterator[Tie]:
    """Yield ties of an axis met in or around the module with one at the failing operation."""
    near: dict[tuple[frozenset[int], int], tuple[int, Axis]] = {}
    for place, axis in enumerate(trial.script.axes_near(operation)):
        if axis.size > 1 and _is_free(axis):
            near.setdefault((_groups(trial, axis), axis.size), (place, axis))
    tried: set[tuple[frozenset[int], int, int]] = set()
    for location, axis in trial.script.around(operation, _MOST_UP):
        if axis.size < 2 or not _is_free(axis):
            continue
        groups = _groups(trial, axis)
        for place, narrow in near.values():
            key = (groups, axis.size, place)
            if axis.size % narrow.size or key in tried or groups & _groups(trial, narrow):
                continue
            tried.add(key)
            yield Tie(location, place, inner=True)
            if axis.size > narrow.size:
                yield Tie(location, place, inner=False)
            if len(tried) >= _MOST_TRIED:
                return


def _is_free(axis: Axis) -> bool:
    return bool((axis >= 0).all())


def _groups(trial: Trial, axis: Axis) -> frozenset[int]:
    return frozenset(trial.groups_of(axis))
