"""FPGM against the sum of distances, written out."""

from __future__ import annotations

import math

import pytest
import torch
from easypruner_plugins.fpgm import FPGM
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import easypruner
from easypruner import Context
from easypruner.testing.networks import Depthwise, Grouped, Residual
from tests.helpers.scoring import equal_units_graph, iterate_slices, signed_graph, single_unit_graph


@pytest.mark.parametrize('build', [Residual, Depthwise, Grouped])
def test_the_sum_of_distances_to_all_other_filters(build: type[nn.Module]) -> None:
    graph = signed_graph(build)
    scores = FPGM().score(graph, Context())
    for name, group in graph.groups.items():
        for layer, member in enumerate(group.producers):
            weight = graph.parameter(member.param).detach()
            filters = [
                [
                    x
                    for part in iterate_slices(weight, member.dim, unit)
                    for x in part.flatten().tolist()
                ]
                for unit in member.index
            ]
            for unit, own in enumerate(filters):
                total = sum(math.dist(own, other) for other in filters)
                assert scores[name][layer, unit].item() == pytest.approx(total, rel=1e-9)


def test_a_part_shared_by_all_filters_does_not_count() -> None:
    graph = signed_graph(Residual)
    before = FPGM().score(graph, Context())
    with torch.no_grad():
        for module in graph.model.modules():
            if isinstance(module, nn.Conv2d):
                module.weight += 3
    after = FPGM().score(graph, Context())
    assert all(torch.allclose(before[name], after[name], rtol=1e-6) for name in before)


def test_equal_filters_are_exactly_equal() -> None:
    assert not any(
        bool(score.any()) for score in FPGM().score(equal_units_graph(Residual), Context()).values()
    )


@settings(max_examples=40, deadline=None)
@given(
    kinds=st.lists(st.integers(0, 3), min_size=2, max_size=12),
    apart=st.sampled_from([0.0, 1e-12, 1e-7, 1e-3]),
    offset=st.sampled_from([0.0, 5.0]),
)
def test_filters_that_are_next_to_each_other(kinds: list[int], apart: float, offset: float) -> None:
    generator = torch.Generator().manual_seed(len(kinds))
    filters = torch.randn(4, 9, generator=generator).double()[kinds] + offset
    filters += apart * torch.randn(len(kinds), 9, generator=generator).double()
    model = nn.Sequential(nn.Linear(9, len(kinds)), nn.Linear(len(kinds), 2)).double()
    with torch.no_grad():
        model[0].weight.copy_(filters)
    graph = easypruner.trace(model, torch.zeros(1, 9).double())
    actual = FPGM().score(graph, Context())['0'][0].tolist()
    rows = filters.tolist()
    expected = [sum(math.dist(one, other) for other in rows) for one in rows]
    assert actual == pytest.approx(expected, rel=1e-10, abs=0)


def test_a_layer_that_is_compared_in_parts() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2500), nn.Linear(2500, 2))
    with torch.no_grad():
        # As many equal filters as after soft pruning.
        model[0].weight[100:1500] = 0
    graph = easypruner.trace(model, torch.zeros(1, 3))
    expected = torch.cdist(
        *[model[0].weight.detach().double()] * 2, compute_mode='donot_use_mm_for_euclid_dist'
    ).sum(dim=1)
    actual = FPGM().score(graph, Context())['0'][0]
    torch.testing.assert_close(actual, expected, rtol=1e-7, atol=0)
    assert len(actual[100:1500].unique()) == 1


def test_a_single_filter_has_no_distance() -> None:
    graph = single_unit_graph(Residual)
    assert FPGM().score(graph, Context())[next(iter(graph.groups))].unique().tolist() == [0]
