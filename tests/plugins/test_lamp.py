"""Lamp against the paper's score, written out."""

from __future__ import annotations

import pytest
import torch
from easypruner_plugins.lamp import Lamp
from easypruner_plugins.ratio import Ratio
from torch import nn

from easypruner import Context
from easypruner.testing.networks import Dense, Depthwise, Residual
from tests.helpers.scoring import (
    equal_units_graph,
    parameters_of,
    signed_graph,
    single_unit_graph,
    unit_total,
)


def by_hand(squares: list[float]) -> list[float]:
    return [one / sum(other for other in squares if other >= one) for one in squares]


@pytest.mark.parametrize('build', [Residual, Depthwise, Dense])
def test_squared_magnitude_over_those_not_smaller(build: type[nn.Module]) -> None:
    graph = signed_graph(build)
    squares = {n: p.detach() ** 2 for n, p in graph.model.named_parameters()}
    by_layer = Lamp().score(graph, Context())
    by_group = Lamp(over='group').score(graph, Context())
    for name, group in graph.groups.items():
        for layer, member in enumerate(group.producers):
            sums = [unit_total(graph, squares, [member], unit) for unit in range(group.size)]
            assert by_layer[name][layer].tolist() == pytest.approx(by_hand(sums), rel=1e-9)
        members = parameters_of(graph, name)
        sums = [unit_total(graph, squares, members, unit) for unit in range(group.size)]
        assert by_group[name].tolist() == pytest.approx(by_hand(sums), rel=1e-9)


def test_the_scale_of_a_layer_does_not_matter() -> None:
    graph = signed_graph(Residual)
    before = Lamp().score(graph, Context())
    with torch.no_grad():
        graph.model.stem[0].weight *= 1000
    after = Lamp().score(graph, Context())
    assert all(torch.allclose(before[name], after[name]) for name in before)


def test_equal_units_are_removed_one_by_one() -> None:
    scores = Lamp().score(equal_units_graph(Residual), Context())['branch.0.0'][0]
    assert scores.tolist() == pytest.approx([1 / n for n in (6, 5, 4, 3, 2, 1)])


def test_the_last_unit_of_a_group_scores_one() -> None:
    graph = single_unit_graph(Residual)
    name = next(iter(graph.groups))
    assert Lamp().score(graph, Context())[name].unique().tolist() == [1]
    assert Lamp(Ratio(keep=0.3)).select(graph, Context())[name].tolist() == [True]
