"""Cells: the nodes of a network that are counted together, as those of one kind of structure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from easypruner.graph.answers.attentions import find_attentions
from easypruner.graph.answers.structure import KINDS, Structure
from easypruner.graph.coupling.axes import Ids
from easypruner.graph.coupling.components import find_components
from easypruner.graph.coupling.coupling import Coupling
from easypruner.graph.coupling.groups import Partition
from easypruner.graph.coupling.layout import Bools
from easypruner.graph.coupling.splits import WHOLE, Splits

NOTHING, GONE = -1, -2
ONLY = 'the only unit of its group, of which one must stay'
_LOCATION = re.compile(r': [\w:]+ in (?:the model itself|\S+)( \(.*\))?$')


def shorten(reason: str) -> str:
    """Return a reason without the operation and the module at its end.

    >>> shorten('entries are looked up by their position: embedding in model.embed_tokens')
    'entries are looked up by their position'
    """
    return _LOCATION.sub('', reason)


class Cell(NamedTuple):
    """Nodes that are counted together.

    Attributes:
        kind: their kind of structure.
        reason: why they stay; None if they can go.
        is_split: whether they are of the weights that make queries, keys and values.
    """

    kind: str
    reason: str | None
    is_split: bool


@dataclass(frozen=True)
class Cells:
    """The nodes of a network, in cells.

    Attributes:
        keys: the cells.
        units: (kind, reason) -> the number of units.
        cell_of: node -> number of its cell; -1 if no parameter has it, -2 if a cut removed it.
    """

    keys: list[Cell]
    units: dict[tuple[str, str | None], int]
    cell_of: Ids

    @classmethod
    def of(cls, coupling: Coupling, parts: Partition, structure: Structure, gone: Bools) -> Cells:
        """Return the cells of a network."""
        unit_of = np.full(structure.kind.size, -1)
        np.maximum.at(unit_of, structure.label, parts.unit_of)
        is_free, is_gone = unit_of >= 0, np.append(gone, False)[unit_of]
        reasons, reason = _number_reasons(coupling, structure)
        left = np.bincount(parts.group_of[~gone], minlength=parts.sizes.size)
        reason[is_free] = np.where(left[parts.group_of[unit_of[is_free]]] == 1, 1, 0)
        code = structure.kind * len(reasons) + reason
        counted = structure.owned & ~is_gone
        split = _find_split(coupling).astype(np.int64)
        counted[structure.label[_find_uncounted(coupling.splits)]] = False
        codes, cell_of = np.unique(code[structure.label] * 2 + split, return_inverse=True)
        cell_of[~structure.owned[structure.label]] = NOTHING
        cell_of[is_gone[structure.label]] = GONE

        def decode(code: int) -> tuple[str, str | None]:
            return KINDS[code // len(reasons)], reasons[code % len(reasons)]

        units = zip(*np.unique(code[counted], return_counts=True), strict=True)
        return cls(
            keys=[Cell(*decode(code // 2), bool(code % 2)) for code in codes.tolist()],
            units={decode(int(code)): int(count) for code, count in units},
            cell_of=cell_of,
        )

    def find(self, *kinds: str) -> list[int]:
        """Return the numbers of the cells of some kinds."""
        return [number for number, cell in enumerate(self.keys) if cell.kind in kinds]


def _find_split(coupling: Coupling) -> Bools:
    """Return for each node whether it is of the weights that make queries, keys and values.

    Ties, which may couple the width of heads with all channels, are left out.
    """
    (a, b), numbers = coupling.edges.arrays(), coupling.edges.numbers()
    inner = (a >= 0) & (b >= 0) & (numbers < coupling.history.edges)
    label = find_components(a[inner], b[inner], coupling.axes.nodes)
    found = np.zeros(label.size, dtype=bool)
    for attention in find_attentions(coupling.splits):
        for key in attention.splits:
            nodes = coupling.splits.grids[key]
            found[label[nodes[nodes >= 0]]] = True
    return found[label]


def _find_uncounted(splits: Splits) -> Ids:
    """Return the nodes of shared heads that stay, without one for each head.

    As such heads stay, all their channels are units of their own, of keys and of values.
    """
    found = []
    for attention in find_attentions(splits):
        whole = [key for key in sorted(attention.splits) if splits.chosen[key] == WHOLE]
        for key in whole:
            heads = np.moveaxis(splits.grids[key], splits.heads[key], 0)
            found.append(heads.reshape(len(heads), -1)[:, key == whole[0] :].reshape(-1))
    nodes = np.concatenate([np.empty(0, dtype=np.int64), *found])
    return nodes[nodes >= 0]


def _number_reasons(coupling: Coupling, structure: Structure) -> tuple[list[str | None], Ids]:
    """Return the reasons, shortened, and for each unit the number of that for which it stays.

    The first is None, for what can go.
    """
    numbers: dict[str | None, int] = {None: 0, ONLY: 1}
    texts = [shorten(text) for text in coupling.axes.reasons.texts]
    of_text = [numbers.setdefault(text, len(numbers)) for text in texts]
    return list(numbers), np.array([*of_text, 0])[structure.reason]
