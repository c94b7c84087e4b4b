"""Budgets: the limit is met, no group is emptied, and what cannot be is said."""

from __future__ import annotations

import pytest
import torch
from easypruner_plugins.macs import Macs
from easypruner_plugins.ratio import Ratio
from easypruner_plugins.threshold import Threshold
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import easypruner
from easypruner import Context
from easypruner.errors import BudgetError, ConfigError
from easypruner.graph import ChannelGraph
from tests.networks import Concatenated, Depthwise, Plain, example, lively

GRAPHS = [easypruner.trace(lively(build), example()) for build in (Plain, Concatenated, Depthwise)]
graphs = st.sampled_from(GRAPHS)


def random_scores(graph: ChannelGraph, seed: int, levels: int = 1000) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randint(levels, (group.size,), generator=generator) / levels
        for name, group in graph.groups.items()
    }


@settings(deadline=None)
@given(graph=graphs, seed=st.integers(0, 10**6), keep=st.floats(0.35, 1), levels=st.integers(1, 9))
def test_macs_meets_its_limit_and_no_unit_more_would_fit(
    graph: ChannelGraph, seed: int, keep: float, levels: int
) -> None:
    scores = random_scores(graph, seed, levels)
    budget = Macs(keep=keep)
    try:
        masks = budget(scores, graph, Context())
    except BudgetError as error:
        assert 'is the least that can be had' in str(error)
        return
    limit = keep * graph.cost().macs
    assert graph.cost(masks).macs <= limit
    assert all(mask.any() for mask in masks.values())
    for name, mask in masks.items():
        for unit in (~mask).nonzero().flatten().tolist():
            one_back = dict(masks) | {name: mask.clone()}
            one_back[name][unit] = True
            assert graph.cost(one_back).macs > limit
    assert budget.delivered(masks, graph) == graph.cost(masks).macs / graph.cost().macs


@settings(deadline=None)
@given(graph=graphs, seed=st.integers(0, 10**6), keep=st.floats(0.3, 1))
def test_global_ratio_keeps_the_best_units_of_all(
    graph: ChannelGraph, seed: int, keep: float
) -> None:
    scores = random_scores(graph, seed)
    masks = Ratio(keep=keep)(scores, graph, Context())
    units = sum(group.size for group in graph.groups.values())
    assert sum(int(m.sum()) for m in masks.values()) == round(keep * units)
    removed = torch.cat([scores[n][~m] for n, m in masks.items()])
    best = {n: int(s.argmax()) for n, s in scores.items()}
    kept = [
        float(s) for n, m in masks.items() for i, s in enumerate(scores[n]) if m[i] and i != best[n]
    ]
    if kept and removed.numel():
        assert float(removed.max()) <= min(kept)


@settings(deadline=None)
@given(graph=graphs, seed=st.integers(0, 10**6), keep=st.floats(0, 1))
def test_layer_ratio_keeps_that_share_of_each_group(
    graph: ChannelGraph, seed: int, keep: float
) -> None:
    masks = Ratio(keep=keep, scope='layer')(random_scores(graph, seed), graph, Context())
    for name, mask in masks.items():
        assert int(mask.sum()) == max(1, round(keep * graph.groups[name].size))


def test_threshold_keeps_what_is_above_and_the_best_in_any_case() -> None:
    graph = GRAPHS[0]
    scores = {'body.0.0': torch.arange(8) / 10, 'body.1.0': torch.zeros(12)}
    masks = Threshold(0.25)(scores, graph, Context())
    assert masks['body.0.0'].tolist() == [False] * 3 + [True] * 5
    assert int(masks['body.1.0'].sum()) == 1


def test_equal_scores_are_cut_evenly() -> None:
    graph = GRAPHS[0]
    scores = {name: torch.ones(group.size) for name, group in graph.groups.items()}
    masks = Ratio(keep=0.5)(scores, graph, Context())
    assert [int(mask.sum()) for mask in masks.values()] == [4, 6]


@pytest.mark.parametrize('build', [lambda: Macs(keep=1.0), lambda: Ratio(keep=1.0)])
def test_a_budget_of_one_removes_nothing(build: object) -> None:
    masks = build()(random_scores(GRAPHS[0], 0), GRAPHS[0], Context())
    assert masks.removed_units == 0


@pytest.mark.parametrize(
    'build', [lambda: Macs(keep=0.0), lambda: Ratio(keep=0.0), lambda: Macs(limit=1)]
)
def test_an_impossible_budget_says_what_can_be_had(build: object) -> None:
    with pytest.raises(BudgetError, match='the least that can be had') as caught:
        build()(random_scores(GRAPHS[0], 0), GRAPHS[0], Context())
    assert 'each of' in str(caught.value)


@pytest.mark.parametrize(
    'build',
    [lambda: Macs(), lambda: Macs(keep=0.5, limit=1), lambda: Macs(keep=2), lambda: Ratio(keep=-1),
     lambda: Ratio(keep=0.5, scope='stages')],
)  # fmt: skip
def test_arguments_out_of_range_are_refused(build: object) -> None:
    with pytest.raises(ConfigError):
        build()
