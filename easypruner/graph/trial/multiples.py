"""Multiples: units are joined where code runs only on widths that some number divides.

Code such as ``assert width % 4 == 0``, or a padding to an even width, fails for some widths only.
Where pairs of units go, or four or eight of them at a time, no cut leaves such a width.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence

import numpy as np

from easypruner.graph.coupling.axes import Axis
from easypruner.graph.trial.repair_search import Cause
from easypruner.graph.trial.trace_check import progress_of
from easypruner.graph.trial.trial import Trial
from easypruner.graph.trial.widths import Repairs

_COUNTS = (2, 4, 8)
_ROUNDS = 3
"""A cut may fit the code by chance, but hardly in each of so many rounds."""


def find_multiple(trial: Trial, cause: Cause, repairs: Repairs) -> Trial | None:
    """Return a trial with units joined that gets past a failure; None if no joining helps.

    What helps is done in all modules of the type, if that gets past the failure as well.

    Args:
        trial: runs the trials.
        cause: the failure of the last one.
        repairs: the repairs of that trial.
    """
    operation = cause.failure.operation
    if operation is None:
        return None
    alike = trial.expected.alike(operation)
    for count in _COUNTS:
        for operations in ([operation, *alike], [operation])[: 2 if alike else 1]:
            axes = [axis for each in operations for axis in trial.expected.axes_near[each]]
            if _helps(trial, axes, count, cause, repairs):
                _join(trial, axes, count)
                return trial.regroup()
    return None


def _helps(trial: Trial, axes: Sequence[Axis], count: int, cause: Cause, repairs: Repairs) -> bool:
    """Return whether trials get past a failure, in several rounds, if units are joined."""
    edges = trial.coupling.edges
    with contextlib.ExitStack() as undo:
        undo.callback(edges.revert, edges.mark())
        if not _join(trial, axes, count):
            return False
        joined = trial.regroup()
        return all(
            progress_of(joined.run(joined.choose_widths(number), repairs)) > cause.failure.position
            for number in range(cause.failure.round_number, cause.failure.round_number + _ROUNDS)
        )


def _join(trial: Trial, axes: Iterable[Axis], count: int) -> bool:
    """Couple each ``count`` neighbouring units of the groups in axes; return whether all fit.

    Nothing is coupled if a group has no such number of units.
    """
    parts = trial.parts
    groups = sorted({group for axis in axes for group in trial.groups_of(axis)})
    sizes = [int(parts.sizes[group]) for group in groups]
    if not groups or any(size % count or size <= count for size in sizes):
        return False
    starts = np.cumsum(parts.sizes) - parts.sizes
    # One node of each unit will do: the others go with it.
    nodes = np.full(parts.group_of.size, -1)
    free = np.flatnonzero(parts.unit_of >= 0)
    nodes[parts.unit_of[free]] = free
    for group, size in zip(groups, sizes, strict=True):
        trial.coupling.couple_within(Axis(nodes[starts[group] : starts[group] + size]), count)
    return True
