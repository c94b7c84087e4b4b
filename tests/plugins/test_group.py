"""Group against the sum over whole coupled groups, written out."""

from __future__ import annotations

import pytest
import torch
from easypruner_plugins.group import Group
from torch import nn

from easypruner import Context
from tests.helpers.networks import NETWORKS
from tests.helpers.scoring import parameters_of, signed_graph, unit_total


@pytest.mark.parametrize('build', NETWORKS)
def test_all_members_of_a_unit_count(build: type[nn.Module]) -> None:
    graph = signed_graph(build)
    squares = {name: p.detach() ** 2 for name, p in graph.model.named_parameters()}
    scores = Group(normalization='none').ranking_scores(graph, Context())
    for name, group in graph.groups.items():
        sums = [
            unit_total(graph, squares, parameters_of(graph, name), unit)
            for unit in range(group.size)
        ]
        assert scores[name].tolist() == pytest.approx(sums, rel=1e-9)


def test_each_group_is_compared_with_its_mean() -> None:
    graph = signed_graph(NETWORKS[1])
    raw = Group().score(graph, Context())
    for name, score in Group().ranking_scores(graph, Context()).items():
        relative = [len(raw[name]) * one / sum(raw[name].tolist()) for one in raw[name].tolist()]
        assert score.tolist() == pytest.approx(relative)
    with torch.no_grad():
        graph.model.stem[0].weight *= 10
    assert Group().score(graph, Context())['stem.0'].sum() > 10 * raw['stem.0'].sum()
