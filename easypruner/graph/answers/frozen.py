"""What is frozen: the dimensions of parameters that stay, whole or in part, and the reasons."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from easypruner.graph.answers.structure import INPUTS, KINDS, OTHER, OUTPUTS, Structure
from easypruner.graph.coupling.axes import INPUT, OUTPUT, Axis
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
    for param, tensor in tensors.items():
        for dim, size in enumerate(tensor.shape):
            owner = coupling.axes.owners.get((param, dim))
            if owner is None:
                reason = coupling.axes.explain_unowned(param, dim, size)
                axes = coupling.axes.of_parameter(param)
                kind = kind_of_constant(coupling, axes[dim] if axes else None)
                result.append(Frozen(param, dim, int(size), reason, kind))
            else:
                parts = _find_parts(coupling, structure, owner.axis)
                result += [Frozen(param, dim, *part) for part in parts]
    return tuple(result)


def _find_parts(
    coupling: Coupling, structure: Structure, axis: Axis
) -> Iterator[tuple[int, str, str]]:
    """Yield (channels, reason, kind) for the indices of an axis that stay."""
    texts = coupling.axes.reasons.texts
    reasons, kinds = structure.reasons_at(axis), np.zeros(axis.size, dtype=np.int64)
    has_node = axis.ids >= 0
    kinds[has_node] = structure.kind[structure.label[axis.ids[has_node]]]
    kinds[~has_node] = [KINDS.index(_kind_of(texts[-n - 1])) for n in axis.ids[~has_node].tolist()]
    stays = np.stack([reasons, kinds])[:, reasons >= 0]
    pairs, counts = np.unique(stays, axis=1, return_counts=True)
    for (reason, kind), channels in zip(pairs.T.tolist(), counts.tolist(), strict=True):
        yield channels, texts[reason], KINDS[kind]


def kind_of_constant(coupling: Coupling, axis: Axis | None) -> str:
    """Return the kind of structure of an axis that has no nodes."""
    if axis is None or axis.reason is None:
        return OTHER
    return _kind_of(coupling.axes.reasons.texts[-axis.reason - 1])


def _kind_of(reason: str) -> str:
    return INPUTS if reason == INPUT else OUTPUTS if reason.startswith(OUTPUT) else OTHER
