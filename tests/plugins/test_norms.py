"""LpNorm, L1Norm and L2Norm against sums written out."""

from __future__ import annotations

import math

import pytest
import torch
from easypruner_plugins.lp_norm import L1Norm, L2Norm, LpNorm
from easypruner_plugins.ratio import Ratio
from torch import nn

import easypruner
from easypruner import Context
from easypruner.errors import ConfigError
from easypruner.graph import ChannelGraph
from tests.networks import Depthwise, Grouped, Plain, Residual, Shared
from tests.plugins.scoring import parameters_of, settled, unit_total


def expected(graph: ChannelGraph, p: float, group: str, members: list, unit: int) -> float:
    powers = {m.param: graph.parameter(m.param).detach().abs() ** p for m in members}
    return unit_total(graph, powers, members, unit) ** (1 / p)


@pytest.mark.parametrize('p', [1, 2, 0.5, 3, 12])
@pytest.mark.parametrize('build', [Residual, Depthwise, Grouped])
def test_norms_of_producers(build: type[nn.Module], p: float) -> None:
    graph = settled(build)
    scores = LpNorm(p=p).score(graph, Context())
    for name, group in graph.groups.items():
        assert scores[name].shape == (len(group.producers), group.size)
        for layer, member in enumerate(group.producers):
            for unit in range(group.size):
                assert scores[name][layer, unit].item() == pytest.approx(
                    expected(graph, p, name, [member], unit), rel=1e-9
                )


@pytest.mark.parametrize('p', [1, 2, 3])
@pytest.mark.parametrize('build', [Residual, Shared])
def test_one_norm_of_the_whole_group(build: type[nn.Module], p: float) -> None:
    graph = settled(build)
    scores = LpNorm(p=p, over='group').score(graph, Context())
    for name, group in graph.groups.items():
        for unit in range(group.size):
            assert scores[name][unit].item() == pytest.approx(
                expected(graph, p, name, parameters_of(graph, name), unit), rel=1e-9
            )


@pytest.mark.parametrize('over', ['producers', 'group'])
@pytest.mark.parametrize(('short', 'p'), [(L1Norm, 1), (L2Norm, 2)])
def test_the_named_norms(short: type[LpNorm], p: int, over: str) -> None:
    graph = settled(Residual)
    one, other = (
        source.ranking_scores(graph, Context())
        for source in (short(over=over), LpNorm(None, p, over))
    )
    assert all(torch.equal(one[name], other[name]) for name in graph.groups)


def test_large_layers_are_summed_in_parts() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(700, 500, 1, bias=False)
    graph = easypruner.trace(nn.Sequential(layer, nn.Conv2d(500, 2, 1)), torch.zeros(1, 700, 1, 1))
    assert layer.weight.numel() > 1 << 18
    for p in (1, 2):
        scores = LpNorm(p=p).score(graph, Context())['0'][0]
        rows = layer.weight.detach().double().flatten(1)
        torch.testing.assert_close(scores.double(), rows.norm(p, dim=1), rtol=1e-5, atol=0)


def test_small_weights_in_half_precision_do_not_vanish() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)).half()
    graph = easypruner.trace(model, torch.zeros(1, 3, 2, 2).half())
    with torch.no_grad():
        model[0].weight.fill_(2**-13)
    squares = L2Norm().score(graph, Context())['0'][0]
    assert squares.tolist() == pytest.approx([math.sqrt(3) * 2**-13] * 4)


@pytest.mark.parametrize('p', [0, -1, math.inf, math.nan, True, '2', None])
def test_a_norm_that_is_none(p: object) -> None:
    with pytest.raises(ConfigError, match='of LpNorm must be a number above 0'):
        LpNorm(p=p)  # type: ignore[arg-type]


def test_a_misspelled_over_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"over='grop' of L1Norm .* did you mean 'group'"):
        L1Norm(over='grop')


def test_the_group_norm_ranks_by_readers_too() -> None:
    graph = settled(Plain)
    with torch.no_grad():
        graph.model.body[1][0].weight[:, 3] = 0
        graph.model.body[0][0].weight[3] *= 0.5
        graph.model.body[0][1].weight[3] = 0
        graph.model.body[0][1].bias[3] = 0
    masks = L2Norm(Ratio(keep=7 / 8, scope='layer'), over='group').select(graph, Context())
    assert masks['body.0.0'].tolist() == [unit != 3 for unit in range(8)]
