"""Components of random graphs, compared with SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from easypruner.graph.coupling.components import find_components


@pytest.mark.parametrize('edges', [0, 10, 40, 200])
def test_random_graphs(edges: int) -> None:
    random = np.random.default_rng(edges)
    for nodes in range(1, 60):
        a, b = random.integers(0, nodes, (2, edges))
        matrix = coo_array((np.ones(edges), (a, b)), shape=(nodes, nodes))
        assert_array_equal(find_components(a, b, nodes), connected_components(matrix)[1])


def test_long_paths() -> None:
    """All nodes of a path are one component, in whatever order its nodes are numbered."""
    size = 10_000
    halves = np.arange(size).reshape(2, -1)
    back_and_forth = np.stack([halves[0], halves[1][::-1]], axis=1).ravel()
    shuffled = np.random.default_rng(0).permutation(size)
    for path in (np.arange(size), np.arange(size)[::-1], back_and_forth, shuffled):
        assert not find_components(path[:-1], path[1:], size).any()


def test_nothing() -> None:
    none = np.empty(0, dtype=np.int64)
    assert find_components(none, none, 0).size == 0
    assert_array_equal(find_components(none, none, 3), [0, 1, 2])
