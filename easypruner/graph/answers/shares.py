"""Shares: how much of each kind of structure can go, what it costs, and what holds the rest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass
from functools import reduce

import numpy as np
from torch import Tensor

from easypruner.graph.answers.attentions import find_attentions
from easypruner.graph.answers.cells import GONE, Cells, shorten
from easypruner.graph.answers.structure import (
    CONVOLUTION,
    HEAD_WIDTH,
    HEADS,
    INPUTS,
    KINDS,
    MLP,
    OUTPUTS,
    STREAM_WITH,
    Structure,
)
from easypruner.graph.coupling.axes import INPUT, OUTPUT
from easypruner.graph.coupling.cost import Cost, CostModel, build_cost_model
from easypruner.graph.coupling.coupling import Coupling
from easypruner.graph.coupling.groups import Partition
from easypruner.graph.coupling.layout import Bools

_WIDTH_GOES = "attention='width' removes width of every head; attention='heads' removes heads"
_ONLY_WIDTH = 'the width of these heads goes, because no whole head can'
_HEADS_GO = "attention={!r} removes heads; attention='width' removes width of every head"
_ONLY_HEADS = 'whole heads go, because their width cannot'
_OF_WEIGHTS = {'convolution.weight': CONVOLUTION, 'linear.weight': MLP}


@dataclass(frozen=True)
class Held:
    """The units of a kind of structure that stay for the same reason.

    Attributes:
        reason: the reason, without the operation and the module.
        units: the number of units.
        cost: what would go with all of them.
    """

    reason: str
    units: int
    cost: Cost


@dataclass(frozen=True)
class KindShare:
    """How much of a kind of structure can go.

    A weight between two kinds counts for both, because it goes with either. So the costs of
    several kinds do not sum to that of the network.

    Attributes:
        kind: the kind, such as ``'heads'`` or ``'residual stream'``.
        units: the number of units, with those that stay.
        prunable: the number of units that can go.
        cost: what all units cost.
        prunable_cost: what goes with all units that can go.
        held: the others by reason, most units first.
    """

    kind: str
    units: int
    prunable: int
    cost: Cost
    prunable_cost: Cost
    held: tuple[Held, ...]


def find_shares(
    coupling: Coupling,
    parts: Partition,
    structure: Structure,
    gone: Bools,
    parameters: Mapping[str, Tensor],
) -> tuple[KindShare, ...]:
    """Return the share of each kind of structure that the network has, its inputs left out.

    Args:
        coupling: has the costs of the operations.
        parts: how the nodes fall into groups.
        structure: the units without regard to what must stay, and their kinds.
        gone: number of a unit of ``parts`` -> whether a cut has removed it.
        parameters: name -> parameter. A tied one has one name.
    """
    cells = Cells.of(coupling, parts, structure, gone)
    costs = _Costs.of(coupling, parameters, cells)
    inside = list(_held_in_cells(cells, costs))
    outside = [
        *_held_by_choice(coupling, cells, costs),
        *_held_constants(coupling, parameters, costs),
    ]
    present = {kind for kind, _ in (*cells.units, *outside)}
    return tuple(
        _make_share(kind, cells, costs, *(_of_kind(kind, held) for held in (inside, outside)))
        for kind in KINDS
        if kind in present and kind != INPUTS
    )


def _of_kind(kind: str, held: Iterable[tuple[str, Held]]) -> list[Held]:
    return [entry for own, entry in held if own == kind]


@dataclass(frozen=True)
class _Costs:
    """What goes with cells.

    Attributes:
        model: the cost of the network by what is left of each cell.
        sizes: the number of nodes of each cell.
        layers: path of a module -> its cost.
    """

    model: CostModel
    sizes: list[int]
    layers: dict[str, Cost]

    @classmethod
    def of(cls, coupling: Coupling, parameters: Mapping[str, Tensor], cells: Cells) -> _Costs:
        """Return the costs of a network. Nodes that a cut removed cost nothing."""
        number = len(cells.keys)
        group = np.where(cells.cell_of == GONE, number, cells.cell_of)
        unit_of = np.full(group.size, -1)
        unit_of[group >= 0] = np.arange((group >= 0).sum())
        group_of = group[group >= 0]
        sizes = np.bincount(group_of, minlength=number + 1)
        parts = Partition(np.maximum(sizes, 1), unit_of, group_of, np.full(group.size, -1))
        model = build_cost_model(coupling, parts, parameters)
        sizes[number] = 0
        return cls(model, sizes.tolist(), model.by_layer(sizes.tolist()))

    def going_with(self, cells: Iterable[int]) -> Cost:
        """Return what goes if all nodes of some cells go."""
        left = list(self.sizes)
        for cell in cells:
            left[cell] = 0
        before, after = self.model(self.sizes), self.model(left)
        return Cost(*(a - b for a, b in zip(astuple(before), astuple(after), strict=True)))


def _held_in_cells(cells: Cells, costs: _Costs) -> Iterator[tuple[str, Held]]:
    """Yield (kind, what stays) of units that are coupled with a reason."""
    for (kind, reason), units in cells.units.items():
        if reason is not None:
            own = [n for n in cells.find(kind) if cells.keys[n].reason == reason]
            yield kind, Held(reason, units, costs.going_with(own))


def _held_by_choice(coupling: Coupling, cells: Cells, costs: _Costs) -> Iterator[tuple[str, Held]]:
    """Yield heads where their width goes, and width where heads go. Both have the same weights."""
    option, attentions = coupling.splits.attention, find_attentions(coupling.splits)
    why_width = _WIDTH_GOES if option == 'width' else _ONLY_WIDTH
    why_heads = _ONLY_HEADS if option == 'width' else _HEADS_GO.format(option)
    for kind, other, reason, units in (
        (HEADS, HEAD_WIDTH, why_width, sum(a.heads for a in attentions if not a.loses_heads)),
        (HEAD_WIDTH, HEADS, why_heads, sum(a.width for a in attentions if a.loses_heads)),
    ):
        if units:
            of_other = cells.find(other, STREAM_WITH[other])
            cost = costs.going_with(n for n in of_other if cells.keys[n].is_split)
            yield kind, Held(reason, units, cost)


def _held_constants(
    coupling: Coupling, parameters: Mapping[str, Tensor], costs: _Costs
) -> Iterator[tuple[str, Held]]:
    """Yield (kind, what stays) of layers all of whose channels were known to stay from the start.

    They have no nodes. The cost is that of the layer.
    """
    for name, operand in coupling.tally.operands.items():
        axes = coupling.axes.of_parameter(name)
        if operand not in _OF_WEIGHTS or name not in parameters or not axes:
            continue
        if axes[0].reason is None or axes[0].size == 1:
            continue
        text = coupling.axes.reasons.texts[-axes[0].reason - 1]
        if text != INPUT:
            kind = OUTPUTS if text.startswith(OUTPUT) else _OF_WEIGHTS[operand]
            layer = costs.layers.get(name.rpartition('.')[0], Cost(0, 0))
            yield kind, Held(shorten(text), axes[0].size, layer)


def _make_share(
    kind: str, cells: Cells, costs: _Costs, inside: list[Held], outside: list[Held]
) -> KindShare:
    """Return the share of a kind.

    Args:
        kind: the kind.
        cells: the nodes.
        costs: what goes with them.
        inside: those of its units in cells that stay.
        outside: those that have no cells of their own.
    """
    own, prunable = cells.find(kind), cells.units.get((kind, None), 0)
    free = [number for number in own if cells.keys[number].reason is None]
    held = _joined([*inside, *outside])
    return KindShare(
        kind=kind,
        units=prunable + sum(entry.units for entry in held),
        prunable=prunable,
        cost=reduce(_add, (entry.cost for entry in outside), costs.going_with(own)),
        prunable_cost=costs.going_with(free),
        held=tuple(sorted(held, key=lambda entry: -entry.units)),
    )


def _joined(held: Iterable[Held]) -> list[Held]:
    """Return the entries, those of the same reason as one."""
    found: dict[str, Held] = {}
    for entry in held:
        known = found.get(entry.reason)
        if known is not None:
            entry = Held(entry.reason, known.units + entry.units, _add(known.cost, entry.cost))
        found[entry.reason] = entry
    return list(found.values())


def _add(one: Cost, other: Cost) -> Cost:
    return Cost(*(a + b for a, b in zip(astuple(one), astuple(other), strict=True)))
