"""Budgets: the limit is met, no group is emptied, and infeasible limits are reported."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from easypruner_plugins.macs import Macs
from easypruner_plugins.optimal_threshold import OptimalThreshold
from easypruner_plugins.params import Params
from easypruner_plugins.ratio import Ratio
from easypruner_plugins.threshold import Threshold
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import easypruner
from easypruner import Budget, Context, Limits, Masks
from easypruner.errors import BudgetError, ConfigError
from easypruner.graph import ChannelGraph
from easypruner.strategies.budgets.costs import CostBudget, Tightest
from easypruner.testing import example_inputs, randomized_network
from easypruner.testing.networks import Dense, Depthwise, Plain, Residual
from tests.helpers.networks import traced_network

GRAPHS = [traced_network(build) for build in (Plain, Dense, Depthwise)]
LIMITED = [
    traced_network(build, limits=limits)
    for build in (Plain, Residual)
    for limits in (Limits(round_to=4), Limits(min_units=3), Limits(max_removed=0.4, round_to=2))
]
graphs = st.sampled_from(GRAPHS)

COSTS: dict[type[CostBudget], Callable[[ChannelGraph, Masks | None], int]] = {
    Macs: lambda graph, masks: graph.cost(masks).macs,
    Params: lambda graph, masks: graph.cost(masks).params,
}
BUDGETS: dict[str, Callable[[], Budget]] = {
    'Macs': lambda: Macs(keep=0.8),
    'Params': lambda: Params(keep=0.8),
    'Ratio': lambda: Ratio(0.8),
    'Ratio-layer': lambda: Ratio(0.8, scope='layer'),
    'Ratio-stage': lambda: Ratio(0.8, scope='stage'),
    'Ratio-isomorphic': lambda: Ratio(0.8, scope='isomorphic'),
    'Ratio-dict': lambda: Ratio({'*': 0.8}),
    'Threshold': lambda: Threshold(0.3),
    'OptimalThreshold': lambda: OptimalThreshold(0.1),
    'several': lambda: Tightest([Macs(keep=0.8), Params(keep=0.8), Ratio(0.9), Threshold(0.1)]),
}
budgets = pytest.mark.parametrize('build', BUDGETS.values(), ids=BUDGETS)


def random_scores(graph: ChannelGraph, seed: int, levels: int = 1000) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randint(levels, (group.size,), generator=generator) / levels
        for name, group in graph.groups.items()
    }


@pytest.mark.parametrize('kind', COSTS)
@settings(deadline=None, max_examples=60)
@given(graph=graphs, seed=st.integers(0, 10**6), keep=st.floats(0.35, 1), levels=st.integers(1, 9))
def test_a_cost_meets_its_limit_and_one_more_unit_would_exceed_it(
    kind: type[CostBudget], graph: ChannelGraph, seed: int, keep: float, levels: int
) -> None:
    cost = COSTS[kind]
    scores = random_scores(graph, seed, levels)
    budget = kind(keep=keep)
    try:
        masks = budget(scores, graph, Context())
    except BudgetError as error:
        assert 'is the lowest possible' in str(error)
        return
    limit = keep * cost(graph, None)
    assert cost(graph, masks) <= limit
    assert all(mask.any() for mask in masks.values())
    for name, mask in masks.items():
        for unit in (~mask).nonzero().flatten().tolist():
            one_back = dict(masks) | {name: mask.clone()}
            one_back[name][unit] = True
            assert cost(graph, Masks(one_back)) > limit
    assert budget.delivered(masks, graph) == cost(graph, masks) / cost(graph, None)
    in_units = kind(limit=limit)
    assert in_units(scores, graph, Context()) == masks
    assert in_units.delivered(masks, graph) == cost(graph, masks)


def test_params_are_those_of_the_network_that_is_left() -> None:
    graph = GRAPHS[1]
    budget = Params(limit=700)
    masks = budget(random_scores(graph, 3), graph, Context())
    model = copy.deepcopy(graph.model)
    easypruner.prune(model, masks, graph=graph.on(model))
    left = sum(parameter.numel() for parameter in model.parameters())
    assert left == budget.delivered(masks, graph) <= 700


@budgets
@settings(deadline=None, max_examples=25)
@given(data=st.data(), seed=st.integers(0, 10**6), levels=st.sampled_from([1, 2, 5, 1000]))
def test_each_group_keeps_its_best_and_an_allowed_number(
    build: Callable[[], Budget], data: st.DataObject, seed: int, levels: int
) -> None:
    graph = data.draw(st.sampled_from(GRAPHS + LIMITED))
    scores = random_scores(graph, seed, levels)
    try:
        masks = build()(scores, graph, Context())
    except BudgetError as error:
        assert 'is the lowest possible' in str(error)
        return
    assert list(masks) == list(scores)
    masks.check(graph)
    for name, mask in masks.items():
        if not mask.all():
            assert scores[name][~mask].max() <= scores[name][mask].min()
        assert masks.kept(name) in graph.limits.get(name, Limits()).widths(mask.numel())


@budgets
def test_with_scores_of_some_groups_the_others_stay_whole(build: Callable[[], Budget]) -> None:
    graph = GRAPHS[0]
    some = {'body.1.0': torch.arange(12) / 12}
    budget = build()
    masks = budget(some, graph, Context())
    assert list(masks) == ['body.1.0'] and 0 < masks.removed_units < 12
    model = copy.deepcopy(graph.model)
    easypruner.prune(model, masks, graph=graph.on(model))
    assert model.get_parameter('body.0.0.weight').shape[0] == 8
    for part in budget.parts():
        assert part.delivered(masks, graph) <= part.asked + 0.05


@budgets
def test_nothing_to_choose_from(build: Callable[[], Budget]) -> None:
    graph = GRAPHS[0]
    try:
        masks = build()({}, graph, Context())
    except BudgetError as error:
        assert 'is the lowest possible' in str(error)
    else:
        assert len(masks) == 0


@budgets
def test_a_group_of_one_unit_and_infinite_scores(build: Callable[[], Budget]) -> None:
    model = randomized_network(Plain)
    graph = easypruner.trace(model, example_inputs())
    easypruner.prune(model, {'body.0.0': torch.arange(8) == 5}, graph=graph)
    infinite = torch.full((12,), float('inf'))
    infinite[:6] = torch.arange(6.0)
    scores = {'body.0.0': torch.tensor([-1.0]), 'body.1.0': infinite}
    masks = build()(scores, graph, Context())
    assert masks['body.0.0'].tolist() == [True]
    assert masks['body.1.0'][6:].all()


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


def test_threshold_keeps_units_above_it_and_always_the_best() -> None:
    graph = GRAPHS[0]
    scores = {'body.0.0': torch.arange(8) / 10, 'body.1.0': torch.zeros(12)}
    masks = Threshold(0.25)(scores, graph, Context())
    assert masks['body.0.0'].tolist() == [False] * 3 + [True] * 5
    assert int(masks['body.1.0'].sum()) == 1


@pytest.mark.parametrize('graph', GRAPHS + LIMITED, ids=str)
def test_thresholds_hold_whatever_widths_there_are(graph: ChannelGraph) -> None:
    for number in range(41):
        value, scores = (number - 2) / 36, random_scores(graph, number)
        masks = Threshold(value)(scores, graph, Context())
        assert all(bool(masks[name][score > value].all()) for name, score in scores.items())
        budget = OptimalThreshold(number / 40)
        assert budget.delivered(budget(scores, graph, Context()), graph) <= budget.asked + 1e-12


def test_equal_scores_are_cut_evenly() -> None:
    graph = GRAPHS[0]
    scores = {name: torch.ones(group.size) for name, group in graph.groups.items()}
    masks = Ratio(keep=0.5)(scores, graph, Context())
    assert [int(mask.sum()) for mask in masks.values()] == [4, 6]


@pytest.mark.parametrize(
    'budget',
    [Macs(keep=1.0), Params(keep=1), Ratio(1.0), Ratio(1, scope='layer'), Ratio({'*': 1})],
    ids=lambda budget: budget.kind,
)
def test_a_budget_of_one_removes_nothing(budget: Budget) -> None:
    for graph in GRAPHS + LIMITED:
        assert budget(random_scores(graph, 0), graph, Context()).removed_units == 0


@pytest.mark.parametrize(
    'budget',
    [Macs(keep=0.0), Params(keep=0), Ratio(0.0), Macs(limit=1), Params(limit=0)],
    ids=lambda budget: f'{budget.kind} {budget.asked}',
)
def test_an_impossible_budget_reports_what_is_feasible(budget: Budget) -> None:
    graph = GRAPHS[0]
    with pytest.raises(BudgetError, match='the lowest possible') as caught:
        budget(random_scores(graph, 0), graph, Context())
    assert 'each of' in str(caught.value)
    least = {name: torch.arange(group.size) < 1 for name, group in graph.groups.items()}
    cost = graph.cost(least)
    values = {'Macs': f'{cost.macs:,}', 'Params': f'{cost.params:,}', 'Ratio': f'{2 / 20:.4f}'}
    assert values[budget.kind] in str(caught.value)


def test_no_share_of_each_group_leaves_its_best_unit() -> None:
    graph = GRAPHS[0]
    scores = random_scores(graph, 0)
    for budget in (Ratio(0.0, scope='layer'), Ratio({'*': 0})):
        masks = budget(scores, graph, Context())
        assert {n: int(m.nonzero()) for n, m in masks.items()} == {
            n: int(s.argmax()) for n, s in scores.items()
        }


class TestSharesByGroup:
    def test_the_first_pattern_that_fits_counts_and_other_groups_stay_whole(self) -> None:
        graph = GRAPHS[1]
        assert {n: g.size for n, g in graph.groups.items()} == {'a.0': 4, 'b.0': 6, 'c.0': 5}
        budget = Ratio({'b': 0.5, 'b.0': 0.9, '[ab].0': 0.25})
        masks = budget(random_scores(graph, 0), graph, Context())
        assert [masks.kept(name) for name in ('a.0', 'b.0', 'c.0')] == [1, 3, 5]
        assert budget.asked == 0.25
        assert budget.asked_of(masks, graph) == budget.delivered(masks, graph) == 9 / 15

    def test_a_group_that_no_pattern_fits_stays_whole(self) -> None:
        graph = GRAPHS[0]
        masks = Ratio({'body.1': 0.5})(random_scores(graph, 0), graph, Context())
        assert [masks.kept(name) for name in graph.groups] == [8, 6]

    def test_a_pattern_without_a_group_is_refused(self) -> None:
        graph = GRAPHS[0]
        with pytest.raises(ConfigError, match=r"keep of Ratio name 'body\.2'.*did you mean"):
            Ratio({'body.2': 0.5})(random_scores(graph, 0), graph, Context())


@pytest.mark.parametrize(
    'build',
    [lambda: Macs(), lambda: Macs(keep=0.5, limit=1), lambda: Macs(keep=2), lambda: Ratio(keep=-1),
     lambda: Ratio(keep=0.5, scope='stages'), lambda: Ratio({}), lambda: Ratio({'a': 2}),
     lambda: Ratio({'a': 0.5}, scope='global'), lambda: Params(limit=float('nan')),
     lambda: Params(keep='half'), lambda: Params(limit=True), lambda: Threshold(float('nan')),
     lambda: Threshold('0.1'), lambda: Threshold(float('inf')), lambda: Threshold(True),
     lambda: Threshold(None), lambda: Ratio(0.5, scope=3)],
)  # fmt: skip
def test_arguments_out_of_range_are_refused(build: Callable[[], Any]) -> None:
    with pytest.raises(ConfigError):
        build()
