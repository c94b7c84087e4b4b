"""Edges: coupling many indices at once is the same as coupling pairs of them."""

from __future__ import annotations

import networkx
import numpy as np
import pytest

from easypruner.graph.coupling.axes import Axis
from easypruner.graph.coupling.edges import Edges


def components(edges: Edges, ids: np.ndarray) -> set[frozenset[int]]:
    graph = networkx.Graph()
    graph.add_nodes_from(ids.tolist())
    graph.add_edges_from(np.stack(edges.arrays(), axis=1).tolist())
    return {frozenset(part) for part in networkx.connected_components(graph)}


@pytest.mark.parametrize('seed', range(20))
def test_runs_are_coupled_position_by_position(seed: int) -> None:
    random = np.random.default_rng(seed)
    count, size = int(random.integers(1, 5)), int(random.integers(1, 6))
    ids = random.integers(-3, 12, size=count * size)
    runs, pairs = Edges(), Edges()
    one = runs.couple_runs(Axis(ids), count)
    table = ids.reshape(count, size)
    for row in table[1:]:
        pairs.couple(Axis(table[0]), Axis(row))
    assert components(runs, ids) == components(pairs, ids)
    assert one.is_constant == bool((one.ids < 0).all())
    for position, lead in enumerate(one.ids):
        assert lead in table[:, position]
        assert (lead < 0) == bool((table[:, position] < 0).any())


def test_what_is_coupled_with_reasons_becomes_constant() -> None:
    edges, free = Edges(), Axis(np.arange(2))
    assert not edges.couple(free, Axis(np.array([2, -1]))).is_constant
    assert edges.couple(free, Axis(np.array([-2, -1]))).is_constant


def test_edges_are_taken_back() -> None:
    edges = Edges()
    edges.couple(Axis(np.arange(2)), Axis(np.arange(2, 4)))
    mark = edges.mark()
    edges.freeze(np.arange(2), -1)
    edges.revert(mark)
    assert [ids.tolist() for ids in edges.arrays()] == [[0, 1], [2, 3]]
    assert [ids.tolist() for ids in Edges().arrays()] == [[], []]


def test_many_repetitions_of_a_node_are_one_edge() -> None:
    repeated, two_reasons = np.tile(np.arange(-1, 5), 5000), np.repeat([-2, -3], 15_000)
    expected = {
        'freeze': {(node, -2) for node in range(5)},
        'couple': {(node, reason) for node in range(5) for reason in (-2, -3)},
    }
    edges = {name: Edges() for name in expected}
    edges['freeze'].freeze(repeated, -2)
    handed_on = edges['couple'].couple(Axis(repeated), Axis.of(two_reasons))
    assert (handed_on.ids == two_reasons).all()
    for name, found in edges.items():
        nodes, reasons = found.arrays()
        assert set(zip(nodes.tolist(), reasons.tolist(), strict=True)) == expected[name]
        assert nodes.size == len(expected[name]) and (found.numbers() < found.mark()).all()
