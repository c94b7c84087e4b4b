"""Structure: what the channels of a network are parts of, such as heads or a residual stream.

All of it follows from the graph: how a weight is used, what is added, what an attention splits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from easypruner.graph.answers.streams import find_streams
from easypruner.graph.coupling.axes import CONSTANT, INNER, INPUT, OUTPUT, Axis, Ids, Owner
from easypruner.graph.coupling.components import find_components
from easypruner.graph.coupling.coupling import Coupling
from easypruner.graph.coupling.groups import find_readers
from easypruner.graph.coupling.layout import Bools
from easypruner.graph.coupling.splits import WHOLE

HEADS, HEAD_WIDTH = 'heads', 'head width'
EXPERTS, EXPERT_WIDTH = 'experts', 'expert width'
STREAM, CONVOLUTION, MLP, RECURRENT = 'residual stream', 'convolution', 'MLP', 'recurrent'
STREAM_WITH = {kind: f'{STREAM} with {kind}' for kind in (HEADS, HEAD_WIDTH)}
EMBEDDING, INPUTS, OUTPUTS, OTHER = 'embedding', 'inputs', 'outputs', 'other'
KINDS = (
    STREAM, *STREAM_WITH.values(), HEADS, HEAD_WIDTH, MLP, EXPERTS, EXPERT_WIDTH, CONVOLUTION,
    RECURRENT, EMBEDDING, INPUTS, OUTPUTS, OTHER,
)  # fmt: skip
"""The kinds of structure, in the order in which they are reported."""

BARE = (CONSTANT, INNER)
"""Reasons that name no operation: any may couple channels with what has no channels."""

_MAKERS = {'convolution.weight': CONVOLUTION, 'linear.weight': MLP, 'embedding.weight': EMBEDDING}
_BIASES = {'convolution.bias': CONVOLUTION, 'linear.bias': MLP}
_OF_RECURRENT = re.compile(r'\bweight_[ih]h')
_NUMBER = {kind: number for number, kind in enumerate(KINDS)}


@dataclass(frozen=True)
class Structure:
    """The units that there would be if nothing had to stay, and what they are parts of.

    Attributes:
        label: node -> the number of its unit.
        kind: number of a unit -> the number of its kind in ``KINDS``.
        reason: number of a unit -> the number of the reason for which it stays, or -1.
        owned: number of a unit -> whether parameters have indices of it.
    """

    label: Ids
    kind: Ids
    reason: Ids
    owned: Bools

    def reasons_at(self, axis: Axis) -> Ids:
        """Return the number of the reason for which each index of an axis stays, or -1."""
        stays = axis.ids < 0
        numbers = -axis.ids - 1
        numbers[~stays] = self.reason[self.label[axis.ids[~stays]]]
        return numbers


def find_structure(coupling: Coupling, tensors: Mapping[str, Tensor]) -> Structure:
    """Sort the nodes into units without regard to what must stay, and find the kind of each.

    Args:
        coupling: has the edges between the nodes.
        tensors: name -> parameter or buffer.
    """
    ranks = {name: tensor.dim() for name, tensor in tensors.items()}
    nodes, (a, b) = coupling.axes.nodes, coupling.edges.arrays()
    inner = (a >= 0) & (b >= 0)
    label = find_components(a[inner], b[inner], nodes)
    count = int(label.max(initial=-1)) + 1
    kinds = _Kinds(coupling, label, np.full(count, _NUMBER[OTHER]), ranks)
    owned = np.zeros(count, dtype=bool)
    for owner in coupling.axes.owners.values():
        owned[label[owner.axis.nodes]] = True
    return Structure(label, kinds.find(a, b), _reasons(coupling, label, a, b, count), owned)


def _reasons(coupling: Coupling, label: Ids, a: Ids, b: Ids, count: int) -> Ids:
    """Return for each unit the number of the first reason with which it is coupled, or -1.

    A reason that says only what it is coupled with counts if there is no other.
    """
    texts = coupling.axes.reasons.texts
    bare = np.array([text in BARE for text in texts], dtype=bool)
    found = np.full(count, 2 * len(texts))
    for nodes, reasons in ((a, b), (b, a)):
        stays = (nodes >= 0) & (reasons < 0)
        numbers = -reasons[stays] - 1
        np.minimum.at(found, label[nodes[stays]], numbers + bare[numbers] * len(texts))
    return np.where(found < 2 * len(texts), found % max(len(texts), 1), -1)


@dataclass(frozen=True)
class _Kinds:
    """Finds the kind of each unit. What is found later counts more.

    Attributes:
        coupling: has the edges between the nodes.
        label: node -> the number of its unit.
        kind: number of a unit -> the number of its kind; it is changed.
        ranks: name of a parameter or buffer -> the number of its dimensions.
    """

    coupling: Coupling
    label: Ids
    kind: Ids
    ranks: Mapping[str, int]

    def find(self, a: Ids, b: Ids) -> Ids:
        """Return the kinds.

        Args:
            a: one end of each edge.
            b: the other end.
        """
        for owner in self.coupling.axes.owners.values():
            bias = _BIASES.get(self.coupling.tally.operands.get(owner.param, ''))
            if bias is not None:  # of a weight that another one is multiplied with
                self._set(owner.axis.nodes, bias)
        readers = find_readers(self.coupling)
        makers = list(self._makers(readers))
        for owner, kind in reversed(makers):
            self._set(owner.axis.nodes, kind)
        self._set(
            find_streams(self.coupling, self.label.size, [o for o, _ in makers], readers), STREAM
        )
        for owner, kind in makers:
            if kind == RECURRENT:  # gates add as well
                self._set(owner.axis.nodes, kind)
        self._find_heads()
        self._find_experts()
        self._find_ends(a, b, readers)
        return self.kind

    def _set(self, nodes: Ids, kind: str) -> None:
        self.kind[self.label[nodes]] = _NUMBER[kind]

    def _makers(self, readers: Set[Owner]) -> Iterator[tuple[Owner, str]]:
        """Yield (dimension that makes channels, kind of its layer), in order of the pass."""
        for owner in self.coupling.axes.owners.values():
            kind = _MAKERS.get(self.coupling.tally.operands.get(owner.param, ''))
            if kind is None or self.ranks[owner.param] < 2:
                continue
            if kind == EMBEDDING:  # a last layer with the same weight reads what it makes
                if owner.dim > 0:
                    yield owner, kind
            elif owner not in readers and not (kind == CONVOLUTION and owner.dim > 1):
                yield owner, RECURRENT if _OF_RECURRENT.search(owner.param) else kind

    def _find_ends(self, a: Ids, b: Ids, readers: Iterable[Owner]) -> None:
        """Find the units that only inputs of the model have, and those that only outputs read."""
        texts = self.coupling.axes.reasons.texts
        outputs = [-n - 1 for n, text in enumerate(texts) if text.startswith(OUTPUT)]
        inputs = [-n - 1 for n, text in enumerate(texts) if text == INPUT]
        is_read = np.zeros(self.kind.size, dtype=bool)
        for owner in readers:
            is_read[self.label[owner.axis.nodes]] = True
        for nodes, reasons in ((a, b), (b, a)):
            of_inputs = self.label[nodes[(nodes >= 0) & np.isin(reasons, inputs)]]
            self.kind[of_inputs[self.kind[of_inputs] == _NUMBER[OTHER]]] = _NUMBER[INPUTS]
            of_outputs = self.label[nodes[(nodes >= 0) & np.isin(reasons, outputs)]]
            self.kind[of_outputs[~is_read[of_outputs]]] = _NUMBER[OUTPUTS]

    def _find_heads(self) -> None:
        splits = self.coupling.splits
        for key in splits.head_widths.keys() | splits.heads.keys():
            grid, chosen = splits.grids[key], splits.chosen[key]
            is_heads = chosen in (splits.heads.get(key), WHOLE)
            if is_heads or chosen == splits.head_widths.get(key):
                kind = HEADS if is_heads else HEAD_WIDTH
                units = np.unique(self.label[grid[grid >= 0]])
                known = [_NUMBER[STREAM], _NUMBER[STREAM_WITH[kind]]]
                streams = np.isin(self.kind[units], known)
                self.kind[units] = np.where(streams, known[1], _NUMBER[kind])
        plain = [_NUMBER[kind] for kind in (MLP, CONVOLUTION, OTHER)]
        for axis in splits.widths:
            units = np.unique(self.label[axis.nodes])
            self.kind[units[np.isin(self.kind[units], plain)]] = _NUMBER[HEAD_WIDTH]

    def _find_experts(self) -> None:
        """Find experts, and the width inside of them: the other dimensions of their weights."""
        axes = (*self.coupling.tally.experts, *self.coupling.positions.axes)
        experts = np.zeros(self.kind.size, dtype=bool)
        for axis in axes:
            experts[self.label[axis.nodes]] = True
        self.kind[experts] = _NUMBER[EXPERTS]
        owners = self.coupling.axes.owners.values()
        stacks = {owner.param for owner in owners if experts[self.label[owner.axis.nodes]].any()}
        for owner in owners:
            of_others = np.unique(self.label[owner.axis.nodes])
            inner = of_others[np.isin(self.kind[of_others], [_NUMBER[MLP], _NUMBER[OTHER]])]
            if owner.param in stacks and self.ranks[owner.param] > 2:
                self.kind[inner] = _NUMBER[EXPERT_WIDTH]
