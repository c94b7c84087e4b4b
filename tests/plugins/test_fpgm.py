"""FPGM against the sum of distances, written out."""

from __future__ import annotations

import math

import pytest
import torch
from easypruner_plugins.fpgm import FPGM
from torch import nn

from easypruner import Context
from tests.networks import Depthwise, Grouped, Residual
from tests.plugins.scoring import alike, one_unit, settled, slices


@pytest.mark.parametrize('build', [Residual, Depthwise, Grouped])
def test_the_sum_of_distances_to_all_other_filters(build: type[nn.Module]) -> None:
    graph = settled(build)
    scores = FPGM().score(graph, Context())
    for name, group in graph.groups.items():
        for layer, member in enumerate(group.producers):
            weight = graph.parameter(member.param).detach()
            filters = [
                [x for part in slices(weight, member.dim, unit) for x in part.flatten().tolist()]
                for unit in member.index
            ]
            for unit, own in enumerate(filters):
                total = sum(math.dist(own, other) for other in filters)
                assert scores[name][layer, unit].item() == pytest.approx(total, rel=1e-9)


def test_what_all_filters_share_does_not_count() -> None:
    graph = settled(Residual)
    before = FPGM().score(graph, Context())
    with torch.no_grad():
        for module in graph.model.modules():
            if isinstance(module, nn.Conv2d):
                module.weight += 3
    after = FPGM().score(graph, Context())
    assert all(torch.allclose(before[name], after[name], rtol=1e-6) for name in before)


def test_equal_filters_are_exactly_equal() -> None:
    assert not any(bool(score.any()) for score in FPGM().score(alike(Residual), Context()).values())


def test_a_single_filter_has_no_distance() -> None:
    graph = one_unit(Residual)
    assert FPGM().score(graph, Context())[next(iter(graph.groups))].unique().tolist() == [0]
