"""The walk: rules follow the axes over a tape, again where a first walk could not tell enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from easypruner.graph.coupling import rules
from easypruner.graph.coupling.choice import Choice
from easypruner.graph.coupling.cost import counted_axes
from easypruner.graph.coupling.coupling import Axis, Coupling
from easypruner.graph.coupling.groups import OwnedAxes, Partition, partition, reading, reasons_at
from easypruner.graph.coupling.unprunable import held
from easypruner.graph.recording.parametrized import weight_norms
from easypruner.graph.recording.stand_ins import Rehearsal
from easypruner.graph.recording.tape import Tape


@dataclass(frozen=True)
class Walk:
    """A finished walk.

    Attributes:
        coupling: what is coupled with what.
        owned: the axes of parameters.
        parts: how the indices fall into groups.
        counted: axes that enter the cost besides those of parameters.
    """

    coupling: Coupling
    owned: OwnedAxes
    parts: Partition
    counted: list[Axis]


def walk(rehearsal: Rehearsal, tapes: Sequence[Tape], choice: Choice) -> Walk:
    """Let the rules walk the tapes.

    Args:
        rehearsal: of the model.
        tapes: of the evaluation pass, and of the training pass if there is one.
        choice: what may go.
    """
    fixed = held(rehearsal.modules)
    directions = frozenset(normed.direction for normed in weight_norms(rehearsal.modules))
    ignored = choice.ignored(rehearsal.modules) if choice.ignore else {}
    preferred: dict[tuple[int, int], int] = {}
    while True:
        coupling = Coupling(tapes, fixed, directions, preferred)
        _apply_rules(coupling, tapes)
        wanted = coupling.heads if choice.attention == 'heads' else coupling.head_widths
        if not wanted.items() <= preferred.items() and _differs(coupling, wanted):
            preferred = {**preferred, **wanted}
            continue
        _hold_ignored(coupling, ignored)
        owned, counted = OwnedAxes.of(coupling), counted_axes(coupling)
        parts = partition(coupling, owned, counted)
        if not coupling.ambiguous:
            return Walk(coupling, owned, parts, counted)
        found = {
            (owner.param, owner.dim): coupling.reasons[numbers[0]]
            for owner in coupling.owners
            if ((numbers := reasons_at(owner, parts.reason_of)) >= 0).all()
        }
        if found.keys() <= fixed.keys():
            return Walk(coupling, owned, parts, counted)
        fixed = {**fixed, **found}


def _differs(coupling: Coupling, wanted: Mapping[tuple[int, int], int]) -> bool:
    return any(coupling.split_at[split] != part for split, part in wanted.items())


def _apply_rules(coupling: Coupling, tapes: Sequence[Tape]) -> None:
    for tape in tapes:
        for operation in tape.operations:
            rules.apply(coupling, operation)
        coupling.operation = None
        for path, tensor in tape.outputs:
            for axis in coupling.axes(tensor):
                coupling.fix(axis, f'an output of the model ({path})')
        # The cost is that of the evaluation pass, which comes first.
        coupling.counting = False


def _hold_ignored(coupling: Coupling, ignored: Mapping[str, object]) -> None:
    """Keep the channels that ignored modules make or carry."""
    if not ignored:
        return
    reads = reading(coupling)
    for owner, is_read in zip(coupling.owners, reads, strict=True):
        module = owner.param.rpartition('.')[0]
        if module in ignored and not is_read:
            entry = ignored[module]
            name = entry.__name__ if isinstance(entry, type) else entry
            ids = owner.ids[owner.ids >= 0]
            coupling.hold(np.unique(ids), f'ignored, as {name!r} says')
