"""Components: the nodes that some edges connect."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from easypruner.graph.coupling.axes import Ids
from easypruner.graph.coupling.layout import Bools


def find_components(a: Ids, b: Ids, chosen: Bools, nodes: int) -> Ids:
    """Return for each node the number of its component, if only the chosen edges connect nodes."""
    ends = a[chosen], b[chosen]
    matrix = coo_array((np.ones(ends[0].size, np.int8), ends), shape=(nodes, nodes))
    labels: Ids = connected_components(matrix, directed=False)[1].astype(np.int64)
    return labels
