"""Components: the nodes that edges connect, directly or by way of others."""

from __future__ import annotations

import numpy as np

from easypruner.graph.coupling.axes import Ids


def find_components(a: Ids, b: Ids, nodes: int) -> Ids:
    """Return for each node the number of its component, in the order of their first nodes.

    Each node points to one of its component that is not behind it, at first to itself. Edges
    between two components make the later one point to the earlier one, until none is left.

    Args:
        a: the first node of each edge.
        b: the second node of each edge.
        nodes: the number of nodes.

    >>> find_components(np.array([3, 1]), np.array([1, 4]), nodes=5)
    array([0, 1, 2, 1, 1])
    """
    own = np.arange(nodes)
    first = own
    while a.size:
        first = first.copy()
        np.minimum.at(first, np.maximum(a, b), np.minimum(a, b))
        while not np.array_equal(further := first[first], first):
            first = further
        a, b = first[a], first[b]
        apart = a != b
        a, b = a[apart], b[apart]
    numbers: Ids = np.cumsum(first == own) - 1
    return numbers[first]
