"""Resolving: try the cut of all groups; repair, tie or freeze what fails until nothing does."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from easypruner.graph.coupling.groups import Partition
from easypruner.graph.trial.repair_search import find_known_repairs, find_repairs
from easypruner.graph.trial.ties import find_tie
from easypruner.graph.trial.trace_check import Failure
from easypruner.graph.trial.trial import Trial
from easypruner.graph.trial.widths import Repairs, Widths


def resolve(trial: Trial) -> tuple[Repairs, Partition]:
    """Run trials in which all groups are cut until every shape is the expected one.

    After a failure, attributes of modules are repaired. If that does not help, two widths are
    tied. If that does not help either, the groups at fault are frozen. What helps for one module is
    tried on all modules of its type.

    Returns:
        the attributes to set after a cut, and the groups that can be cut.
    """
    repairs = find_known_repairs(trial)
    while (trial.parts.sizes > 1).any():
        widths, failure = _run_rounds(trial, repairs)
        if failure is None:
            break
        better = find_repairs(trial, failure, widths, repairs)
        if better is not None:
            repairs = better
            continue
        tied = find_tie(trial, failure, repairs)
        if tied is not None:
            trial, repairs = tied
            continue
        groups = trial.find_at_fault(failure, repairs)
        groups |= _corresponding_groups(trial, failure, groups)
        trial = _freeze(trial, groups, failure.reason)
    return repairs, trial.parts


def _run_rounds(trial: Trial, repairs: Repairs) -> tuple[Widths, Failure | None]:
    """Run the rounds of a trial up to the first failure; return the widths of the last one."""
    for number in trial.rounds():
        widths = trial.choose_widths(number)
        failure = trial.run(widths, repairs)
        if failure is not None:
            break
    return widths, failure


def _corresponding_groups(trial: Trial, failure: Failure, groups: set[int]) -> set[int]:
    """Return the groups that have the role of the given ones in other modules of the type."""
    if failure.operation is None:
        return set()
    expected = trial.expected
    numbers = [
        number
        for number, axis in enumerate(expected.axes[failure.operation])
        if trial.groups_of(axis) and trial.groups_of(axis) <= groups
    ]
    return {
        group
        for other in expected.alike(failure.operation)
        for number in numbers
        for group in trial.groups_of(expected.axes[other][number])
    }


def _freeze(trial: Trial, groups: Iterable[int], reason: str) -> Trial:
    """Return the trial with ``groups`` frozen."""
    parts = trial.parts
    free = np.flatnonzero(parts.unit_of >= 0)
    group = parts.group_of[parts.unit_of[free]]
    trial.coupling.freeze_nodes(free[np.isin(group, list(groups))], reason)
    return trial.regroup()
