"""LpNorm, L1Norm and L2Norm against sums written out."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext

import pytest
import torch
from easypruner_plugins.lp_norm import L1Norm, L2Norm, LpNorm
from easypruner_plugins.ratio import Ratio
from torch import nn

import easypruner
from easypruner import Context
from easypruner.errors import ConfigError, EasyPrunerError
from easypruner.graph import ChannelGraph
from easypruner.testing.networks import Depthwise, Grouped, Plain, Residual
from tests.helpers.networks import Shared
from tests.helpers.scoring import parameters_of, signed_graph, unit_total


def expected(graph: ChannelGraph, p: float, group: str, members: list, unit: int) -> float:
    powers = {m.param: graph.parameter(m.param).detach().abs() ** p for m in members}
    return unit_total(graph, powers, members, unit) ** (1 / p)


@pytest.mark.parametrize('p', [1, 2, 0.5, 3, 12])
@pytest.mark.parametrize('build', [Residual, Depthwise, Grouped])
def test_norms_of_producers(build: type[nn.Module], p: float) -> None:
    graph = signed_graph(build)
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
    graph = signed_graph(build)
    scores = LpNorm(p=p, over='group').score(graph, Context())
    for name, group in graph.groups.items():
        for unit in range(group.size):
            assert scores[name][unit].item() == pytest.approx(
                expected(graph, p, name, parameters_of(graph, name), unit), rel=1e-9
            )


@pytest.mark.parametrize('over', ['producers', 'group'])
@pytest.mark.parametrize(('short', 'p'), [(L1Norm, 1), (L2Norm, 2)])
def test_the_named_norms(short: type[LpNorm], p: int, over: str) -> None:
    graph = signed_graph(Residual)
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


def layer_of(rows: list[list[float]]) -> ChannelGraph:
    """Return the graph of a layer with these filters, and one that reads them."""
    weight = torch.tensor(rows)
    model = nn.Sequential(
        nn.Linear(weight.shape[1], len(rows), bias=False), nn.Linear(len(rows), 2, bias=False)
    )
    with torch.no_grad():
        model[0].weight.copy_(weight)
        model[1].weight.copy_(torch.linspace(-3, 1, 2 * len(rows)).view(2, -1))
    return easypruner.trace(model, torch.zeros(1, weight.shape[1]))


ROWS = [[1e-9, 2e-9, 0.0], [3e-3, -5e-3, 1e-3], [0.1, 0.1, -0.1], [0.0, 0.0, 0.0], [7.0, 1.0, 2.0]]


@pytest.mark.parametrize('over', ['producers', 'group'])
def test_a_large_p_approaches_the_largest_weight(over: str) -> None:
    graph = layer_of(ROWS)
    scores = LpNorm(p=1000, over=over).score(graph, Context())['0'].reshape(-1).tolist()
    every = graph.model[0].weight.abs().amax(dim=1)
    if over == 'group':
        every = torch.maximum(every, graph.model[1].weight.abs().amax(dim=0))
    # A sum of n equal powers is the largest times n^(1/p).
    for actual, largest in zip(scores, every.tolist(), strict=True):
        assert largest * (1 - 1e-6) <= actual <= largest * 5 ** (1 / 1000) * (1 + 1e-6)


def exact(row: list[float], p: str) -> Decimal:
    """Return the norm in fifty digits."""
    with localcontext() as context:
        context.prec = 50
        return sum(abs(Decimal(x)) ** Decimal(p) for x in row if x) ** (1 / Decimal(p))


def test_a_small_p_does_not_overflow() -> None:
    rows = torch.rand(4, 300, generator=torch.Generator().manual_seed(0)).tolist()
    graph = layer_of(rows)
    held = graph.model[0].weight.detach().tolist()
    actual = LpNorm(p=0.01).score(graph, Context())['0'][0].tolist()
    assert actual == pytest.approx([float(exact(row, '0.01')) for row in held], rel=1e-9)
    # Here norms are up to 1e500: all of them are divided by the same number.
    actual = LpNorm(p=0.005).score(graph, Context())['0'][0].tolist()
    norms = [exact(row, '0.005') for row in held]
    ratios = [float(norm / norms[0]) for norm in norms]
    assert [score / actual[0] for score in actual] == pytest.approx(ratios, rel=1e-9)
    masks = LpNorm(Ratio(keep=0.5), p=0.005).select(graph, Context())['0']
    assert masks.tolist() == [norm >= sorted(norms)[2] for norm in norms]


def test_norms_that_become_zero_are_reported() -> None:
    model = nn.Sequential(nn.Linear(2, 900), nn.Linear(900, 5), nn.Linear(5, 2))
    graph = easypruner.trace(model, torch.zeros(1, 2))
    with pytest.raises(EasyPrunerError, match=r"LpNorm\(p=0\.001\) .* group '0' become 0"):
        LpNorm(p=0.001).score(graph, Context())


def test_small_weights_in_half_precision_do_not_vanish() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)).half()
    graph = easypruner.trace(model, torch.zeros(1, 3, 2, 2).half())
    with torch.no_grad():
        model[0].weight.fill_(2**-13)
    squares = L2Norm().score(graph, Context())['0'][0]
    assert squares.tolist() == pytest.approx([math.sqrt(3) * 2**-13] * 4)


@pytest.mark.parametrize('p', [0, -1, math.inf, math.nan, True, '2', None])
def test_an_invalid_norm(p: object) -> None:
    with pytest.raises(ConfigError, match='of LpNorm; expected a number above 0'):
        LpNorm(p=p)  # type: ignore[arg-type]


def test_a_misspelled_over_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"over='grop' of L1Norm .* did you mean 'group'"):
        L1Norm(over='grop')


def test_the_group_norm_ranks_by_readers_too() -> None:
    graph = signed_graph(Plain)
    with torch.no_grad():
        graph.model.body[1][0].weight[:, 3] = 0
        graph.model.body[0][0].weight[3] *= 0.5
        graph.model.body[0][1].weight[3] = 0
        graph.model.body[0][1].bias[3] = 0
    masks = L2Norm(Ratio(keep=7 / 8, scope='layer'), over='group').select(graph, Context())
    assert masks['body.0.0'].tolist() == [unit != 3 for unit in range(8)]
