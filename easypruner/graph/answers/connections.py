"""Connections: the shortest ways along edges from a node to others, with the operations on them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order

from easypruner.graph.coupling.axes import Ids
from easypruner.graph.coupling.coupling import Coupling

TIE = 'a number in the code, from which both widths follow'


def describe_operation(found: tuple[str, str] | None) -> str:
    """Return the text for an operation, by its name and module; None is a tie of a trial."""
    return TIE if found is None else f'{found[0]} in {found[1] or "the model itself"}'


@dataclass(frozen=True)
class Connections:
    """The unit of a node, and how its other nodes are connected with it.

    Attributes:
        coupling: has the edges.
        root: the node.
        label: node -> the number of its unit.
    """

    coupling: Coupling
    root: int
    label: Ids

    @property
    def unit(self) -> int:
        """The number of the unit."""
        return int(self.label[self.root])

    @cached_property
    def _edges(self) -> tuple[Ids, Ids, Ids]:
        """The edges of the unit, with those to reasons: both ends, and the numbers of the calls."""
        a, b = self.coupling.edges.arrays()
        unit = self.unit
        own = np.append(self.label, -1)  # an id of a reason finds the entry behind all nodes
        chosen = (own[np.maximum(a, -1)] == unit) | (own[np.maximum(b, -1)] == unit)
        return a[chosen], b[chosen], self.coupling.edges.numbers()[chosen]

    @cached_property
    def nodes(self) -> Ids:
        """The nodes of the unit, ascending."""
        return np.flatnonzero(self.label == self.unit)

    @cached_property
    def _tree(self) -> tuple[Ids, Ids]:
        """The positions of nodes in ``nodes`` in the order of their distance, and predecessors."""
        a, b, _ = self._edges
        inner = (a >= 0) & (b >= 0)
        ends = np.searchsorted(self.nodes, a[inner]), np.searchsorted(self.nodes, b[inner])
        size = self.nodes.size
        matrix = coo_array((np.ones(ends[0].size), ends), shape=(size, size)).tocsr()
        start = int(np.searchsorted(self.nodes, self.root))
        order, before = breadth_first_order(matrix, start, directed=False)
        return order.astype(np.int64), before.astype(np.int64)

    @cached_property
    def _distance(self) -> Ids:
        """The position of each of ``nodes`` in the order of their distance."""
        order, _ = self._tree
        position = np.empty(order.size, dtype=np.int64)
        position[order] = np.arange(order.size)
        return position

    @cached_property
    def _calls(self) -> dict[tuple[int, int], int]:
        """Both ends of an edge -> the number of the first call that made it."""
        a, b, numbers = self._edges
        ends = zip(np.minimum(a, b).tolist(), np.maximum(a, b).tolist(), strict=True)
        found: dict[tuple[int, int], int] = {}
        for pair, number in zip(ends, numbers.tolist(), strict=True):
            found.setdefault(pair, number)
        return found

    def nearest(self, nodes: Ids) -> int:
        """Return that of some nodes of the unit that is nearest to the root."""
        distance = self._distance[np.searchsorted(self.nodes, nodes)]
        return int(nodes[distance.argmin()])

    def way_to(self, node: int) -> list[str]:
        """Return the operations on the way from the root to a node."""
        _, before = self._tree
        nodes, position, steps = self.nodes, int(np.searchsorted(self.nodes, node)), []
        while nodes[position] != self.root:
            pair = int(nodes[position]), int(nodes[before[position]])
            steps.append(self._operation(*pair))
            position = int(before[position])
        return list(dict.fromkeys(reversed(steps)))

    def way_to_reason(self, reason: int) -> list[str]:
        """Return the operations on the way to the nearest node that is coupled with a reason.

        Args:
            reason: the number of the reason.
        """
        a, b, _ = self._edges
        coupled = np.unique(np.concatenate([a[b == -reason - 1], b[a == -reason - 1]]))
        nearest = self.nearest(coupled)
        call = self._calls[-reason - 1, nearest]
        found = self.coupling.history.coupling_operation(call)
        last = [] if found is None else [describe_operation(found)]
        return list(dict.fromkeys([*self.way_to(nearest), *last]))

    def _operation(self, a: int, b: int) -> str:
        call = self._calls[min(a, b), max(a, b)]
        return describe_operation(self.coupling.history.coupling_operation(call))


def without_repeats(texts: Iterable[str]) -> tuple[str, ...]:
    """Return texts in order, each once."""
    return tuple(dict.fromkeys(texts))
