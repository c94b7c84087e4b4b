"""Propagation: the rules hand axes on along the tapes, repeatedly while that finds more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from easypruner.graph.coupling.axes import MERGED, OUTPUT, Axis, Dim, SplitKey, Staying
from easypruner.graph.coupling.choice import PruningChoice
from easypruner.graph.coupling.cost import find_counted_axes
from easypruner.graph.coupling.coupling import Coupling
from easypruner.graph.coupling.grouped import GroupedConvolutions
from easypruner.graph.coupling.groups import OwnedAxes, Partition, find_readers, partition
from easypruner.graph.coupling.merges import find_used_merges
from easypruner.graph.coupling.rules import apply_rule
from easypruner.graph.coupling.splits import MergeKey, Splits
from easypruner.graph.coupling.unprunable import find_unprunable
from easypruner.graph.recording.inventory import Inventory
from easypruner.graph.recording.parametrized import weight_norms
from easypruner.graph.recording.tape import Tape

_TIED = (
    'its groups only go all together, as where channels are shuffled or the next convolution is '
    'grouped in another way'
)


@dataclass(frozen=True)
class Propagation:
    """What the rules found.

    Attributes:
        coupling: the axes of all tensors, and which of them belong together.
        owned: the axes of parameters.
        parts: how the nodes fall into groups.
        counted: the axes besides these whose sizes enter the cost.
    """

    coupling: Coupling
    owned: OwnedAxes
    parts: Partition
    counted: list[Axis]


def propagate(
    inventory: Inventory,
    tapes: Sequence[Tape],
    choice: PruningChoice,
    within: Mapping[str, str],
) -> Propagation:
    """Apply the rules to the operations on the tapes, and sort what they couple into groups.

    They are applied again if one propagation finds what the next one can use: dimensions of
    attentions that should stay free, grouped convolutions that cannot lose whole groups, or
    dimensions that lose nothing.

    Args:
        inventory: the inventory of the model.
        tapes: the tape of the evaluation pass, and that of the training pass if there is one.
        choice: what may be pruned.
        within: weight -> the reason for which its convolution cannot lose whole groups.
    """
    unprunable = find_unprunable(inventory)
    directions = frozenset(normed.direction for normed in weight_norms(inventory.modules))
    ignored = choice.ignored(inventory.modules) if choice.ignore else {}
    preferred: dict[SplitKey, int] = {}
    tried: set[tuple[SplitKey, int]] = set()
    fixed: frozenset[SplitKey] = frozenset()
    staying: Staying = {}
    narrowed: frozenset[MergeKey] = frozenset()
    # It ends: each time, a part of a split is preferred for the first time, or a convolution loses
    # no whole groups any more, or an expansion, a dimension or an index of one is known to stay, or
    # one dimension of a merge alone may lose indices.
    while True:
        grouped = GroupedConvolutions(choice.grouped == 'whole', within)
        splits = Splits(choice.attention, preferred, fixed, narrowed)
        coupling = Coupling(
            tapes, inventory.tensors, unprunable, staying, directions, splits, grouped
        )
        coupling.positions.is_followed = choice.experts
        _apply_rules(coupling, tapes)
        wanted = splits.wanted()
        # Both parts of a split may be the width of a head, as in a square matrix. Neither is wrong.
        better = splits.find_better(dict(wanted.items() - tried))
        if better:
            tried |= better.items()
            preferred = {**wanted, **preferred, **better}
            continue
        _freeze_ignored(coupling, ignored)
        owned, counted = OwnedAxes.of(coupling), find_counted_axes(coupling)
        parts = partition(coupling, owned, counted)
        stuck = find_stuck(coupling, parts)
        if stuck:
            within = {**within, **stuck}
            continue
        copies = _find_copies(coupling, parts)
        if copies:
            fixed |= copies
            continue
        frozen = _find_whole(coupling, parts) if coupling.is_ambiguous else {}
        # What stays only because dimensions are merged may go once it is known which of them stay.
        lasting = {dim: why for dim, why in frozen.items() if not why.startswith(MERGED)}
        if lasting.keys() <= unprunable.keys():
            used = {*frozen.values(), *find_used_merges(coupling)} if splits.merged else ()
            merged = {key for key, why in splits.merged.items() if why in used}
            if merged:
                narrowed |= merged
                continue
        found = frozen if lasting.keys() <= unprunable.keys() else lasting
        partly = _find_partly(coupling, parts) if coupling.is_ambiguous else {}
        if found.keys() <= unprunable.keys() and _count(partly) <= _count(staying):
            return Propagation(coupling, owned, parts, counted)
        unprunable, staying = {**unprunable, **found}, partly


def _apply_rules(coupling: Coupling, tapes: Sequence[Tape]) -> None:
    for tape in tapes:
        for operation in tape.operations:
            apply_rule(coupling, operation)
            coupling.note_step(operation)
        for path, tensor in tape.counted:
            known = coupling.positions.of(tensor)
            for axis in (*coupling.axes_of(tensor), *([] if known is None else [known])):
                coupling.freeze_dimensions(axis, f'{OUTPUT} ({path})')
        for axis, reason in coupling.positions.unused():
            coupling.freeze_nodes(axis.ids, reason)
        coupling.note_step(None)
        # The cost is that of the evaluation pass, whose tape is the first.
        coupling.tally.is_counting = False


def _freeze_ignored(coupling: Coupling, ignored: Mapping[str, str]) -> None:
    """Freeze the channels that ignored modules make or carry."""
    if not ignored:
        return
    readers = find_readers(coupling)
    for owner in coupling.axes.owners.values():
        module = owner.param.rpartition('.')[0]
        if module in ignored and owner not in readers:
            reason = f'ignored, as {ignored[module]!r} says'
            coupling.freeze_nodes(np.unique(owner.axis.nodes), reason)


def _find_copies(coupling: Coupling, parts: Partition) -> frozenset[SplitKey]:
    """Return the expansions whose copies no unit has, and which make a merge ambiguous."""
    return frozenset(
        axis.copy
        for axis in coupling.splits.loose
        if axis.copy is not None and (parts.unit_of[axis.nodes] < 0).all()
    )


def _find_whole(coupling: Coupling, parts: Partition) -> dict[Dim, str]:
    """Return the dimensions that lose no index -> the reason for which the first index stays."""
    found = {}
    for dimension, owner in coupling.axes.owners.items():
        numbers = parts.reasons_at(owner.axis)
        if (numbers >= 0).all():
            found[dimension] = coupling.axes.reasons.texts[numbers[0]]
    return found


def _find_partly(coupling: Coupling, parts: Partition) -> dict[Dim, list[str | None]]:
    """Return the dimensions that lose some indices only -> for each index why it stays, or None.

    Those that adopted the axis of another tensor are left out: that has the indices that stay.
    """
    texts: list[str | None] = [*coupling.axes.reasons.texts, None]
    # What stays only because dimensions are merged may go once it is known which of them stay.
    merged = [number for number, text in enumerate(texts) if text and text.startswith(MERGED)]
    found = {}
    for dimension, owner in coupling.axes.owners.items():
        if owner.reads is None:
            numbers = parts.reasons_at(owner.axis)
            stays = (numbers >= 0) & ~np.isin(numbers, merged)
            if stays.any() and not stays.all():
                found[dimension] = [texts[n] for n in np.where(stays, numbers, -1).tolist()]
    return found


def _count(staying: Staying) -> int:
    """Return how many indices are known to stay."""
    return sum(text is not None for texts in staying.values() for text in texts)


def find_stuck(coupling: Coupling, parts: Partition) -> dict[str, str]:
    """Return the weights of grouped convolutions that can lose no whole group, with the reasons.

    Args:
        coupling: has the convolutions for which whole groups were tried.
        parts: how the nodes fall into groups.
    """
    found = {}
    for weight, groups in coupling.grouped.axes.items():
        if weight not in coupling.grouped.within and not any(
            parts.sizes[number] > 1 for number in parts.groups_of(groups)
        ):
            numbers = parts.reasons_at(groups)
            stays = numbers[numbers >= 0].tolist()
            found[weight] = coupling.axes.reasons.texts[stays[0]] if stays else _TIED
    return found
