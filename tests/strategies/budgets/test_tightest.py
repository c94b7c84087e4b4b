"""Tightest: several budgets at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
from easypruner_plugins.macs import Macs
from easypruner_plugins.params import Params
from easypruner_plugins.ratio import Ratio
from easypruner_plugins.threshold import Threshold
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from easypruner import Budget, Context, Limits
from easypruner.errors import BudgetError, ConfigError
from easypruner.graph import ChannelGraph
from easypruner.strategies.budgets.costs import CostBudget, Tightest
from easypruner.strategies.scores import VoteScores
from easypruner.testing.networks import Dense, Depthwise, Plain
from tests.helpers.networks import traced_network

GRAPHS = [traced_network(build) for build in (Plain, Dense, Depthwise)]
graphs = st.sampled_from(GRAPHS)
COST: dict[type[CostBudget], str] = {Macs: 'macs', Params: 'params'}


def cost_of(kind: type[CostBudget], graph: ChannelGraph, masks: Mapping[str, Tensor] | None) -> int:
    return int(getattr(graph.cost(masks), COST[kind]))


def random_scores(graph: ChannelGraph, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {n: torch.rand(g.size, generator=generator) for n, g in graph.groups.items()}


def kept_least(graph: ChannelGraph) -> dict[str, Tensor]:
    return {name: torch.arange(group.size) < 1 for name, group in graph.groups.items()}


seeds = st.integers(0, 10**6)


class TestSeveralBudgets:
    @settings(deadline=None, max_examples=40)
    @given(graph=graphs, seed=seeds, macs=st.floats(0.5, 1), params=st.floats(0.5, 1))
    def test_all_limits_are_met_and_one_more_unit_would_exceed_them(
        self, graph: ChannelGraph, seed: int, macs: float, params: float
    ) -> None:
        scores = random_scores(graph, seed)
        budget = Tightest([Macs(keep=macs), Params(keep=params)])
        masks = budget(scores, graph, Context())

        def fits(masks: Mapping[str, Tensor]) -> bool:
            cost, whole = graph.cost(masks), graph.cost()
            return cost.macs <= macs * whole.macs and cost.params <= params * whole.params

        assert fits(masks)
        for name, mask in masks.items():
            if not mask.all():
                assert scores[name][~mask].max() <= scores[name][mask].min()
                one_back = dict(masks) | {name: mask.clone()}
                one_back[name][int((~mask).nonzero()[0])] = True
                assert not fits(one_back)
        first, second = budget.parts()
        assert first.delivered(masks, graph) == graph.cost(masks).macs / graph.cost().macs
        assert second.delivered(masks, graph) == graph.cost(masks).params / graph.cost().params

    @pytest.mark.parametrize(
        'build', [lambda: Macs(keep=0.5), lambda: Ratio(0.5), lambda: Threshold(0.4)]
    )
    def test_a_single_budget_is_unchanged(self, build: Callable[[], Budget]) -> None:
        scores = random_scores(GRAPHS[1], 4)
        alone = build()(scores, GRAPHS[1], Context())
        assert Tightest([build()])(scores, GRAPHS[1], Context()) == alone
        assert Tightest([build(), build()])(scores, GRAPHS[1], Context()) == alone

    def test_of_other_budgets_only_units_kept_by_all_stay(self) -> None:
        graph = GRAPHS[0]
        scores = {'body.0.0': torch.arange(8) / 8, 'body.1.0': torch.arange(12) / 12}
        budget = Tightest([Threshold(0.3), Ratio({'body.1': 0.25})])
        masks = budget(scores, graph, Context())
        assert [masks.kept(name) for name in scores] == [5, 3]
        assert (budget.kind, budget.asked) == ('Threshold + Ratio', 0.3)

    def test_votes_that_differ_leave_an_allowed_width(self) -> None:
        graph = traced_network(Plain, limits=Limits(round_to=2))
        generator = torch.Generator().manual_seed(0)
        layers = {n: torch.rand(3, g.size, generator=generator) for n, g in graph.groups.items()}
        masks = Tightest([Threshold(0.4), Ratio(0.7)])(VoteScores(layers), graph, Context())
        assert all(masks.kept(name) % 2 == 0 for name in masks)

    def test_a_list_within_a_list_is_one_list(self) -> None:
        inner = [Macs(keep=0.5), Params(keep=0.5)]
        assert Tightest([Tightest(inner), Ratio(0.5)]).parts()[:2] == tuple(inner)

    @pytest.mark.parametrize('kind', COST)
    def test_an_infeasible_limit_is_named_with_its_least_cost(self, kind: type[CostBudget]) -> None:
        graph = GRAPHS[0]
        other = Macs(keep=0.9) if kind is Params else Params(keep=0.9)
        least = cost_of(kind, graph, kept_least(graph))
        words = f'the limit is 1 {kind.unit}, but {least:,} is the lowest possible'
        for budgets in ([other, kind(limit=1)], [kind(limit=1), other]):
            with pytest.raises(BudgetError, match=words):
                Tightest(budgets)(random_scores(graph, 0), graph, Context())

    @pytest.mark.parametrize('budgets', [[], ['Macs'], [Macs(keep=0.5), None]])
    def test_a_value_that_is_not_a_list_of_budgets_is_refused(self, budgets: list[object]) -> None:
        with pytest.raises(ConfigError, match='expected a list of budgets'):
            Tightest(budgets)
