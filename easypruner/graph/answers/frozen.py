"""What is frozen: the dimensions of parameters that stay, whole or in part, and the reasons."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from easypruner.graph.answers.connections import describe_operation
from easypruner.graph.answers.structure import BARE, INPUTS, KINDS, OTHER, OUTPUTS, Structure
from easypruner.graph.coupling.axes import INPUT, OUTPUT, Axis, Ids
from easypruner.graph.coupling.coupling import Coupling


@dataclass(frozen=True)
class Frozen:
    """A dimension, or some channels of one, that cannot be pruned.

    Attributes:
        param: the dotted name of the parameter.
        dim: the dimension.
        channels: the number of indices that stay for this reason.
        reason: the reason, with the operation and the module.
        kind: what the channels are parts of, such as ``'heads'`` or ``'residual stream'``.
    """

    param: str
    dim: int
    channels: int
    reason: str
    kind: str = OTHER


def find_frozen(
    coupling: Coupling, structure: Structure, tensors: Mapping[str, Tensor]
) -> tuple[Frozen, ...]:
    """Return the dimensions of ``tensors`` that stay, whole or in part, with the reasons."""
    result = []
    places = _Places.find(coupling, structure)
    numbers = {dimension: number for number, dimension in enumerate(coupling.axes.owners)}
    for param, tensor in tensors.items():
        for dim, size in enumerate(tensor.shape):
            owner = coupling.axes.owners.get((param, dim))
            if owner is None:
                reason = coupling.axes.explain_unowned(param, dim, size, tensor)
                axes = coupling.axes.of_parameter(param)
                kind = kind_of_constant(coupling, axes[dim] if axes else None)
                result.append(Frozen(param, dim, int(size), reason, kind))
                continue
            read = coupling.history.reading_operation(numbers[param, dim])
            for channels, reason, kind in _find_parts(coupling, structure, places, owner.axis):
                where = f': {describe_operation(read)}' if reason in BARE and read else ''
                result.append(Frozen(param, dim, channels, reason + where, kind))
    return tuple(result)


@dataclass(frozen=True)
class _Places:
    """Where units are coupled with what has no channels, if no other reason says why they stay.

    Attributes:
        texts: the operations, with their modules; '' is the first one.
        number: number of a unit -> the number of its text.
    """

    texts: tuple[str, ...]
    number: Ids

    @classmethod
    def find(cls, coupling: Coupling, structure: Structure) -> _Places:
        """Find the first operation that couples each unit that stays for a bare reason."""
        bare = [n for n, text in enumerate(coupling.axes.reasons.texts) if text in BARE]
        is_bare = np.isin(structure.reason, bare)
        call = np.full(structure.reason.size, np.iinfo(np.int64).max)
        a, b = coupling.edges.arrays()
        calls = coupling.edges.numbers()
        for nodes, reasons in ((a, b), (b, a)):
            chosen = (nodes >= 0) & np.isin(reasons, [-n - 1 for n in bare])
            np.minimum.at(call, structure.label[nodes[chosen]], calls[chosen])
        number, texts = np.zeros(call.size, dtype=np.int64), {'': 0}
        for made in np.unique(call[is_bare]).tolist():
            found = coupling.history.coupling_operation(made)
            text = '' if found is None else f': {describe_operation(found)}'
            number[is_bare & (call == made)] = texts.setdefault(text, len(texts))
        return cls(tuple(texts), number)


def _find_parts(
    coupling: Coupling, structure: Structure, places: _Places, axis: Axis
) -> Iterator[tuple[int, str, str]]:
    """Yield (channels, reason, kind) for the indices of an axis that stay."""
    texts = coupling.axes.reasons.texts
    reasons = structure.reasons_at(axis)
    kinds, where = np.zeros((2, axis.size), dtype=np.int64)
    has_node = axis.ids >= 0
    units = structure.label[axis.ids[has_node]]
    kinds[has_node], where[has_node] = structure.kind[units], places.number[units]
    kinds[~has_node] = [KINDS.index(_kind_of(texts[-n - 1])) for n in axis.ids[~has_node].tolist()]
    stays = np.stack([reasons, kinds, where])[:, reasons >= 0]
    parts, counts = np.unique(stays, axis=1, return_counts=True)
    for (reason, kind, place), channels in zip(parts.T.tolist(), counts.tolist(), strict=True):
        yield channels, texts[reason] + places.texts[place], KINDS[kind]


def kind_of_constant(coupling: Coupling, axis: Axis | None) -> str:
    """Return the kind of structure of an axis that has no nodes."""
    if axis is None or axis.reason is None:
        return OTHER
    return _kind_of(coupling.axes.reasons.texts[-axis.reason - 1])


def _kind_of(reason: str) -> str:
    return INPUTS if reason == INPUT else OUTPUTS if reason.startswith(OUTPUT) else OTHER
