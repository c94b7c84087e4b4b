"""Settling a graph: every cut is tried; what fails is mended, tied to another width, or frozen."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np

from easypruner.graph.coupling.groups import Partition
from easypruner.graph.trial.repair import Repair, attributes_under, find_repairs, known_numbers
from easypruner.graph.trial.ties import find_tie
from easypruner.graph.trial.trial import Failure, Trial, Widths


@dataclass(frozen=True)
class Settled:
    """What the proof came to.

    Attributes:
        repairs: attributes to set after a cut.
        parts: the groups that are left.
    """

    repairs: tuple[Repair, ...]
    parts: Partition


def settle(trial: Trial) -> Settled:
    """Try the cut of all groups until a trial run does just what the index arrays say.

    What is found for one module is tried on all modules of its type at once.
    """
    repairs = tuple(known_numbers(trial))
    while (trial.parts.sizes > 1).any():
        widths, failure = _try(trial, repairs, trial.turns())
        if failure is None:
            break
        better = find_repairs(trial, failure, widths, repairs)
        if better is not repairs:
            repairs = better
            continue
        tied = find_tie(trial, failure, repairs)
        if tied is not None:
            trial, repairs = tied
            continue
        blamed = trial.at_fault(failure, partial(attributes_under, repairs))
        blamed |= _alike(trial, failure, blamed)
        trial = _freeze(trial, blamed, failure.reason)
    return Settled(repairs, trial.parts)


def _try(
    trial: Trial, repairs: tuple[Repair, ...], turns: Iterable[int]
) -> tuple[Widths, Failure | None]:
    """Run the trials of some turns, up to the first that fails."""
    for turn in turns:
        widths = trial.widths(turn=turn)
        failure = trial.run(widths, attributes_under(repairs, widths))
        if failure is not None:
            break
    return widths, failure


def _alike(trial: Trial, failure: Failure, blamed: set[int]) -> set[int]:
    """Return the groups that stand in other modules where the blamed ones stand in the failing."""
    if failure.operation is None:
        return set()
    script = trial.script
    places = [
        place
        for place, axis in enumerate(script.axes_of(failure.operation))
        if trial.groups_of(axis) and trial.groups_of(axis) <= blamed
    ]
    return {
        group
        for other in script.alike(failure.operation)
        for place in places
        for group in trial.groups_of(script.axes_of(other)[place])
    }


def _freeze(trial: Trial, groups: Iterable[int], reason: str) -> Trial:
    """Return the trial with ``groups`` frozen."""
    parts = trial.parts
    free = np.flatnonzero(parts.unit_of >= 0)
    group = parts.group_of[parts.unit_of[free]]
    trial.coupling.freeze_nodes(free[np.isin(group, list(groups))], reason)
    return trial.regrouped()
