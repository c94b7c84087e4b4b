"""Budgets that are reached in several steps."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping

import pytest
import torch
from easypruner_plugins.macs import Macs
from easypruner_plugins.params import Params
from easypruner_plugins.ratio import Ratio
from easypruner_plugins.threshold import Threshold
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import easypruner
from easypruner import Budget, Context, Masks
from easypruner.errors import BudgetError
from easypruner.graph import ChannelGraph
from easypruner.strategies.budgets.costs import CostBudget, Tightest
from easypruner.testing import example_inputs, randomized_network
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


def largest_unit(kind: type[CostBudget], graph: ChannelGraph) -> int:
    """Return the cost of the costliest unit of the whole network."""
    return max(
        cost_of(kind, graph, None) - cost_of(kind, graph, {n: torch.arange(g.size) > 0})
        for n, g in graph.groups.items()
    )


def cut_in_steps(
    budget: Budget, steps: int, graph: ChannelGraph, seed: int, known: bool = True
) -> tuple[ChannelGraph, list[tuple[Budget, Masks]]]:
    """Cut a copy of a graph's model in steps of equal length; return its graph, and each step."""
    model = copy.deepcopy(graph.model)
    graph = graph.on(model)
    # It is saved to a file between two steps.
    reference = json.loads(json.dumps(budget.reference(graph))) if known else None
    scores = random_scores(graph, seed)
    made = []
    for step in range(steps):
        part = budget.partial(step / steps, (step + 1) / steps, reference)
        masks = part(scores, graph, Context())
        made.append((part, masks))
        easypruner.prune(model, masks, graph=graph)
        scores = {name: score[masks[name]] for name, score in scores.items()}
    return graph, made


steps = st.integers(1, 12)
seeds = st.integers(0, 10**6)


class TestSteps:
    @pytest.mark.parametrize('kind', COST)
    @pytest.mark.parametrize('absolute', [False, True])
    @settings(deadline=None, max_examples=25)
    @given(graph=graphs, seed=seeds, way=st.floats(0, 1), steps=steps)
    def test_a_cost_ends_within_its_limit_and_less_than_a_unit_under_it(
        self,
        kind: type[CostBudget],
        absolute: bool,
        graph: ChannelGraph,
        seed: int,
        way: float,
        steps: int,
    ) -> None:
        whole = cost_of(kind, graph, None)
        least = cost_of(kind, graph, kept_least(graph))
        keep = min((least + way * (whole - least)) / whole + 1e-9, 1.0)
        limit = keep * whole
        budget = kind(limit=limit) if absolute else kind(keep=keep)
        after, made = cut_in_steps(budget, steps, graph, seed)
        assert cost_of(kind, after, None) <= limit
        assert cost_of(kind, after, None) > limit - largest_unit(kind, graph)
        if steps == 1:
            assert made[0][1] == budget(random_scores(graph, seed), graph, Context())

    @pytest.mark.parametrize('scope', ['global', 'stage', 'isomorphic'])
    @settings(deadline=None, max_examples=15)
    @given(graph=graphs, seed=seeds, keep=st.floats(0.2, 1), steps=steps)
    def test_a_share_of_units_ends_where_it_would_at_once(
        self, scope: str, graph: ChannelGraph, seed: int, keep: float, steps: int
    ) -> None:
        budget = Ratio(keep, scope=scope)
        at_once = budget(random_scores(graph, seed), graph, Context())
        after, made = cut_in_steps(budget, steps, graph, seed)
        assert {n: g.size for n, g in after.groups.items()} == {n: at_once.kept(n) for n in at_once}
        last, masks = made[-1]
        everything = Masks({n: torch.ones(g.size) > 0 for n, g in after.groups.items()})
        assert last.delivered(everything, after) == budget.delivered(at_once, graph)
        assert last.asked == last.asked_of(masks, after) == keep

    @settings(deadline=None, max_examples=15)
    @given(graph=graphs, seed=seeds, keep=st.floats(0, 1), steps=steps)
    def test_a_share_of_each_group_ends_where_it_would_at_once(
        self, graph: ChannelGraph, seed: int, keep: float, steps: int
    ) -> None:
        for budget in (Ratio(keep, scope='layer'), Ratio({'*': keep})):
            after, _ = cut_in_steps(budget, steps, graph, seed)
            for name, group in graph.groups.items():
                assert after.groups[name].size == max(1, round(keep * group.size))

    @pytest.mark.parametrize('kind', COST)
    @pytest.mark.parametrize('absolute', [False, True])
    def test_steps_come_evenly(self, kind: type[CostBudget], absolute: bool) -> None:
        graph = GRAPHS[0]
        whole = cost_of(kind, graph, None)
        budget = kind(limit=0.4 * whole) if absolute else kind(keep=0.4)
        _, made = cut_in_steps(budget, 3, graph, 0)
        part, masks = made[0]
        left = cost_of(kind, graph, masks)
        assert 0.8 * whole - largest_unit(kind, graph) < left <= 0.8 * whole
        assert part.delivered(masks, graph) == (left if absolute else left / whole)

    def test_units_are_removed_evenly(self) -> None:
        _, made = cut_in_steps(Ratio(0.5), 5, GRAPHS[0], 0)
        assert [masks.removed_units for _, masks in made] == [2] * 5

    def test_shares_are_of_the_network_before_the_first_step(self) -> None:
        graph = GRAPHS[0]
        for budget in (Macs(keep=0.4), Params(keep=0.4), Ratio(0.5), Ratio({'*': 0.5})):
            after, made = cut_in_steps(budget, 4, graph, 1)
            last, masks = made[-1]
            assert last.asked_of(masks, after) == budget.asked
            assert last.kind == budget.kind
            everything = Masks({n: torch.ones(g.size) > 0 for n, g in after.groups.items()})
            assert budget.asked - 0.1 < last.delivered(everything, after) <= budget.asked

    @settings(deadline=None, max_examples=25)
    @given(graph=graphs, seed=seeds, keep=st.floats(0.6, 1), steps=st.integers(1, 3))
    def test_without_a_reference_they_end_near_it_as_well(
        self, graph: ChannelGraph, seed: int, keep: float, steps: int
    ) -> None:
        after, _ = cut_in_steps(Ratio(keep), steps, graph, seed, known=False)
        units, left = (sum(group.size for group in g.groups.values()) for g in (graph, after))
        assert abs(left - keep * units) <= steps
        after, made = cut_in_steps(Macs(keep=keep), steps, graph, seed, known=False)
        assert after.cost().macs <= keep * graph.cost().macs * (1 + 1e-9)
        for part, masks in made:
            assert masks.removed_units == 0 or 0 < part.asked < 1

    @settings(deadline=None, max_examples=15)
    @given(graph=graphs, seed=seeds, value=st.floats(0, 1), steps=steps)
    def test_a_threshold_ends_where_it_would_at_once(
        self, graph: ChannelGraph, seed: int, value: float, steps: int
    ) -> None:
        at_once = Threshold(value)(random_scores(graph, seed), graph, Context())
        after, made = cut_in_steps(Threshold(value), steps, graph, seed)
        assert {n: g.size for n, g in after.groups.items()} == {n: at_once.kept(n) for n in at_once}
        assert {(part.kind, part.asked, part.spread) for part, _ in made} == {
            ('Threshold', value, None)
        }

    @settings(deadline=None, max_examples=15)
    @given(graph=graphs, seed=seeds, steps=steps)
    def test_several_limits_are_all_met(self, graph: ChannelGraph, seed: int, steps: int) -> None:
        budget = Tightest([Macs(keep=0.6), Params(keep=0.5), Ratio(0.9)])
        after, made = cut_in_steps(budget, steps, graph, seed)
        assert after.cost().macs <= 0.6 * graph.cost().macs
        assert after.cost().params <= 0.5 * graph.cost().params
        everything = Masks({n: torch.ones(g.size) > 0 for n, g in after.groups.items()})
        last, _ = made[-1]
        parts = last.parts()
        assert [part.asked for part in parts] == [0.6, 0.5, 0.9]
        assert all(part.delivered(everything, after) <= part.asked + 0.05 for part in parts)

    def test_a_group_cut_to_a_single_channel_still_counts(self) -> None:
        model = randomized_network(Plain)
        graph = easypruner.trace(model, example_inputs())
        budget = Ratio(0.5)
        reference = budget.reference(graph)
        easypruner.prune(model, {'body.0.0': torch.arange(8) < 1}, graph=graph)
        retraced = easypruner.trace(model, example_inputs())
        assert list(retraced.groups) == ['body.1.0']
        last = budget.partial(0.5, 1.0, reference)
        masks = last(random_scores(retraced, 0), retraced, Context())
        assert masks.kept('body.1.0') == 20 // 2 - 1
        assert last.delivered(masks, retraced) == 0.5

    def test_an_infeasible_end_is_refused(self) -> None:
        with pytest.raises(BudgetError, match='is the lowest possible'):
            cut_in_steps(Macs(keep=0.01), 3, GRAPHS[0], 0)
