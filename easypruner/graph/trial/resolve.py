"""Resolving: try the cut of all groups; repair, tie or freeze what fails until nothing does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import cycle

import numpy as np

from easypruner.graph.coupling.choice import PruningChoice
from easypruner.graph.coupling.groups import Partition
from easypruner.graph.coupling.propagate import Propagation, find_stuck, propagate
from easypruner.graph.cutting.handlers import LayerHandler
from easypruner.graph.recording.inventory import StandIns
from easypruner.graph.recording.tape import Operation, Tape
from easypruner.graph.trial.known_repairs import find_known_repairs
from easypruner.graph.trial.multiples import find_multiple
from easypruner.graph.trial.reads import Key
from easypruner.graph.trial.repair_search import Cause, find_repairs
from easypruner.graph.trial.ties import find_tie
from easypruner.graph.trial.trace_check import Failure
from easypruner.graph.trial.trial import Trial
from easypruner.graph.trial.widths import Repairs, Widths

_MOST_REPAIRED = 12
"""How often repairs of one operation are looked for. Repairs of two rounds may undo each other."""

_MOST_ROUNDS = 4
"""How many rounds are run to find one that fails earlier than another."""


def resolve(
    stand_ins: StandIns,
    tapes: Sequence[Tape],
    of_calls: Sequence[Tape],
    choice: PruningChoice,
    handlers: Sequence[LayerHandler],
) -> tuple[Propagation, Repairs]:
    """Find the groups that can be cut, and the attributes of modules to set after a cut.

    Grouped convolutions that turn out to lose no whole group lose channels within their groups, and
    all is found anew. Each time there are more of them. So it is once if no whole experts can go.

    Args:
        stand_ins: runs the model.
        tapes: the tape of the evaluation pass, and that of the training pass if there is one.
        of_calls: the tapes of further calls.
        choice: what may be pruned.
        handlers: set the modules' own numbers after a cut.
    """
    within: Mapping[str, str] = {}
    while True:
        found = propagate(stand_ins, [*tapes, *of_calls], choice, within)
        trials = [Trial(stand_ins, tape, found, handlers) for tape in (tapes[0], *of_calls)]
        repairs, parts = _resolve_calls(trials)
        if _lost_experts(found, parts):
            choice = replace(choice, experts=False)
            continue
        stuck = find_stuck(found.coupling, parts)
        if not stuck:
            return replace(found, parts=parts), repairs
        within = {**found.coupling.grouped.within, **stuck}


def _lost_experts(found: Propagation, parts: Partition) -> bool:
    """Return whether trials froze experts that a router chooses, and with them maybe others."""
    return any(
        bool(((found.parts.unit_of[axis.nodes] >= 0) & (parts.unit_of[axis.nodes] < 0)).any())
        for axis in found.coupling.positions.axes
    )


def _resolve_calls(trials: Sequence[Trial]) -> tuple[Repairs, Partition]:
    """Run trials in which all groups are cut until every shape is the expected one.

    After a failure, attributes of modules are repaired. If that does not help, two widths are
    tied, or units joined. If that does not help either, the groups at fault are frozen. What helps
    for one module is tried on all modules of its type.

    Args:
        trials: those of the calls of the model. A number that one of them needs at a width is not
            set to another one for the sake of another call: then the groups at fault are frozen.

    Returns:
        the attributes to set after a cut, and the groups that can be cut.
    """
    propagation = trials[0].propagation
    repairs = find_known_repairs(trials[0])
    if len(trials) == 1 and trials[0].is_needless(repairs):
        return repairs, propagation.parts
    settled: frozenset[Key] = frozenset()
    passed = 0
    for start in cycle(trials):
        trial = start.with_propagation(propagation)
        found, last = _resolve_call(trial, repairs, settled)
        changed = last is not trial or found is not repairs
        passed = 1 if changed else passed + 1
        repairs, propagation = found, last.propagation
        if passed == len(trials):
            break
        settled |= repairs.keys()
    final = [start.with_propagation(last.propagation) for start in trials]
    if last.stand_ins.code.comparisons.numbers:
        repairs = _repair_compared(final, repairs)
    return _drop_unread(final, repairs), last.parts


def _resolve_call(trial: Trial, repairs: Repairs, settled: frozenset[Key]) -> tuple[Repairs, Trial]:
    """Run the trials of one call until it passes; return the repairs, and the trial that passed.

    Args:
        trial: runs the trials of the call.
        repairs: the repairs so far.
        settled: the attributes that other calls need as they are.
    """
    failures: Counter[Operation | None] = Counter()
    trial = trial.counting(repairs)
    earlier: tuple[Widths, Failure] | None = None
    # It ends: a tie or a freeze leaves fewer units, and an operation is repaired a few times only.
    while (trial.parts.sizes > 1).any():
        widths, failure = earlier or _run_rounds(trial, repairs)
        if failure is None:
            break
        sought, earlier = earlier is None, None
        failures[failure.operation] += 1
        if failures[failure.operation] <= _MOST_REPAIRED:
            cause = Cause(failure, trial.find_reads(widths, repairs), settled)
            better = find_repairs(trial, cause, widths, repairs)
            if better is not None:
                repairs, trial = better, trial.counting(better)
                continue
            tied = find_tie(trial, cause, repairs)
            if tied is not None:
                trial, repairs = tied[0].counting(tied[1]), tied[1]
                continue
            # Which path code takes is seldom a matter of multiples, but of the width itself.
            joined = None if failure.is_other_path else find_multiple(trial, cause, repairs)
            if joined is not None:
                trial = joined.counting(repairs)
                continue
            earlier = _find_earlier(trial, repairs, failure) if sought else None
            if earlier is not None:
                continue
        groups = trial.find_at_fault(failure, repairs)
        groups |= _corresponding_groups(trial, failure, groups)
        trial = _freeze(trial, groups, failure.reason)
    return repairs, trial


def _repair_compared(trials: Sequence[Trial], repairs: Repairs) -> Repairs:
    """Return repairs with those of numbers that code only compares with widths.

    ``if self.width != self.width_out`` goes wrong where a cut leaves as many channels as the other
    number says, which is not set: half of 192 is 96. What no repair mends is left: masks that make
    such a width are refused before a cut.
    """
    for trial in trials:
        widths = trial.choose_former_widths()
        for _ in range(_MOST_REPAIRED):
            failure = trial.run(widths, repairs)
            if failure is None:
                break
            cause = Cause(failure, trial.find_reads(widths, repairs))
            better = find_repairs(trial, cause, widths, repairs)
            if better is None or not all(_fits(each, better) for each in trials):
                break
            repairs = better
    return repairs


def _fits(trial: Trial, repairs: Repairs) -> bool:
    """Return whether the usual trials pass with some repairs of the same groups."""
    return trial.counting(repairs) is trial and _run_rounds(trial, repairs)[1] is None


def _drop_unread(trials: Sequence[Trial], repairs: Repairs) -> Repairs:
    """Return the repairs of the attributes that some call reads.

    A rule notes the number of groups of a convolution, and what helps one module is done to all of
    its type. Whether another module reads its number is seen in a pass with all groups cut.
    Torch's own layers read theirs.
    """
    modules = trials[0].stand_ins.modules
    if all(type(modules[path]).__module__.startswith('torch.nn.') for path, _ in repairs):
        return repairs
    reads: set[Key] = set()
    for trial in trials:
        reads |= trial.find_reads(trial.choose_widths(0), repairs).keys()
    return {key: repair for key, repair in repairs.items() if key in reads}


def _run_rounds(trial: Trial, repairs: Repairs) -> tuple[Widths, Failure | None]:
    """Run the rounds of a trial up to the first failure; return the widths of the last one."""
    for number in trial.rounds():
        widths = trial.choose_widths(number)
        failure = trial.run(widths, repairs)
        if failure is not None:
            break
    return widths, failure


def _find_earlier(
    trial: Trial, repairs: Repairs, failure: Failure
) -> tuple[Widths, Failure] | None:
    """Return the widths and the failure of a round that fails earlier than another one.

    By chance widths may fit in one round, as 3 of 4 channels fit ``30 // 8``. A tie that would help
    further on makes such a round fail earlier, and so is not seen to help.
    """
    for number in range(_MOST_ROUNDS):
        widths = trial.choose_widths(number)
        other = trial.run(widths, repairs)
        if other is not None and other.position < failure.position:
            return widths, other
    return None


def _corresponding_groups(trial: Trial, failure: Failure, groups: set[int]) -> set[int]:
    """Return the groups that have the role of the given ones in later modules of the type.

    The trial has got past the earlier ones. Modules of other widths are tried for themselves: a tie
    may fit them.
    """
    if failure.operation is None:
        return set()
    expected = trial.expected
    own = expected.axes[failure.operation]
    numbers = [
        number
        for number, axis in enumerate(own)
        if trial.groups_of(axis) and trial.groups_of(axis) <= groups
    ]
    return {
        group
        for other in expected.alike(failure.operation)
        if expected.is_later(other, failure.operation)
        for number in numbers
        if expected.axes[other][number].size == own[number].size
        for group in trial.groups_of(expected.axes[other][number])
    }


def _freeze(trial: Trial, groups: Iterable[int], reason: str) -> Trial:
    """Return the trial with ``groups`` frozen."""
    parts = trial.parts
    free = np.flatnonzero(parts.unit_of >= 0)
    group = parts.group_of[parts.unit_of[free]]
    trial.coupling.freeze_nodes(free[np.isin(group, list(groups))], reason)
    return trial.regroup()
