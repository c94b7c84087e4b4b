"""Limits of groups: the allowed widths, and that budgets respect them."""

from __future__ import annotations

import math

import pytest
import torch
from easypruner_plugins.lp_norm import L1Norm
from easypruner_plugins.macs import Macs
from easypruner_plugins.random_source import Random
from easypruner_plugins.ratio import Ratio
from easypruner_plugins.threshold import Threshold
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import easypruner
from easypruner import Budget, Context, Limits
from easypruner.errors import BudgetError, ConfigError
from easypruner.testing import example_inputs, randomized_network
from easypruner.testing.networks import Dense, Residual

limits = st.builds(
    Limits,
    min_units=st.integers(1, 20),
    max_removed=st.floats(0, 1),
    round_to=st.integers(1, 12),
)


@given(limits, st.integers(1, 40))
def test_widths_keep_to_every_limit(limit: Limits, size: int) -> None:
    widths = limit.widths(size)
    assert widths[-1] == size and list(widths) == sorted(set(widths))
    for width in widths[:-1]:
        assert width % limit.step == 0
        assert width >= limit.min_units
        assert (size - width) / size <= limit.max_removed + 1e-6


@given(limits, st.integers(1, 40), st.data())
def test_the_nearest_width_is_the_nearest(limit: Limits, size: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, size))
    found = int(limit.nearest_widths(size)[count])
    assert found in limit.widths(size)
    assert abs(found - count) == min(abs(width - count) for width in limit.widths(size))


def test_ten_percent_off_twelve_in_steps_of_eight_is_twelve() -> None:
    assert int(Limits(round_to=8).nearest_widths(12)[11]) == 12


@pytest.mark.parametrize(
    'values', [{'min_units': 0}, {'round_to': 1.5}, {'max_removed': 2}, {'max_removed': True}]
)
def test_values_out_of_range_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        Limits.of(values)


def test_a_misspelled_limit_is_named() -> None:
    with pytest.raises(ConfigError, match="did you mean 'min_units'"):
        easypruner.trace(Residual(), example_inputs(), limits={'min_unit': 2})


WIDTHS = {'max_removed': 0.5, 'round_to': 2}


@pytest.mark.parametrize('source', [L1Norm, Random])
@pytest.mark.parametrize(
    'budget',
    [Ratio(0.8), Ratio(0.5, scope='layer'), Ratio(0.5, scope='stage'),
     Ratio(0.5, scope='isomorphic'), Macs(keep=0.8), Threshold(1.0)],
    ids=lambda budget: f'{type(budget).__name__}-{getattr(budget, "scope", "")}',
)  # fmt: skip
def test_every_budget_keeps_to_the_limits(budget: Budget, source: type) -> None:
    model = randomized_network(Dense)
    graph = easypruner.trace(model, example_inputs(), limits=WIDTHS)
    masks = source(budget).select(graph, Context(seed=1))
    assert masks.removed_units
    for name, group in graph.groups.items():
        kept = masks.kept(name)
        assert kept >= math.ceil(group.size * 0.5)
        assert kept % 2 == 0 or kept == group.size


def test_macs_are_within_the_budget_and_one_more_step_would_exceed_it() -> None:
    model = randomized_network(Dense)
    graph = easypruner.trace(model, example_inputs(), limits=WIDTHS)
    limit = 0.8 * graph.cost().macs
    masks = L1Norm(Macs(keep=0.8)).select(graph, Context())
    assert graph.cost(masks).macs <= limit
    for name, group in graph.groups.items():
        wider = [w for w in Limits.of(WIDTHS).widths(group.size) if w > masks.kept(name)]
        if wider:
            grown = {**masks, name: torch.arange(group.size) < wider[0]}
            assert graph.cost(grown).macs > limit


def test_a_budget_made_impossible_by_limits_is_refused_with_the_least_cost() -> None:
    graph = easypruner.trace(Residual(), example_inputs(), limits={'max_removed': 0.25})
    with pytest.raises(BudgetError, match='its limits require'):
        L1Norm(Macs(keep=0.1)).select(graph, Context())
    with pytest.raises(BudgetError, match='its limits require'):
        L1Norm(Ratio(0.1)).select(graph, Context())


def test_the_first_matching_pattern_of_limits_counts() -> None:
    graph = easypruner.trace(
        Residual(),
        example_inputs(),
        limits={'branch.0': {'min_units': 6}, '*': Limits(min_units=2)},
    )
    assert graph.limits['branch.0.0'].min_units == 6
    masks = Random(Ratio(0.3, scope='layer')).select(graph, Context())
    assert masks.kept('branch.0.0') == 6 and masks.kept('stem.0') == 2


def test_a_pattern_without_a_group_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'stem\.0'"):
        easypruner.trace(Residual(), example_inputs(), limits={'stem.00': Limits(min_units=2)})


def test_isomorphic_groups_are_ranked_together() -> None:
    from easypruner.strategies.budgets.ranking import scopes_of

    def block(width: int) -> list[nn.Module]:
        return [nn.Conv2d(width, 8, 3), nn.BatchNorm2d(8), nn.ReLU()]

    model = nn.Sequential(*block(3), *block(8), nn.Flatten(), nn.Linear(128, 6), nn.Linear(6, 2))
    graph = easypruner.trace(model, example_inputs())
    assert scopes_of(graph, 'isomorphic') == [['0'], ['3'], ['7']]
    assert scopes_of(graph, 'global') == [['0', '3', '7']]
    assert scopes_of(graph, 'layer') == [['0'], ['3'], ['7']]
    assert len(scopes_of(graph, 'stage')) == 3


def test_after_a_cut_a_share_is_of_the_original_units() -> None:
    model = randomized_network(Residual)
    graph = easypruner.trace(model, example_inputs(), limits=dict(max_removed=0.5))
    sizes = {name: group.size for name, group in graph.groups.items()}
    for _ in range(3):
        masks = L1Norm(Ratio(keep=0.7, scope='layer')).select(graph, Context())
        easypruner.prune(model, masks, graph=graph)
    for name, group in graph.groups.items():
        assert group.size == math.ceil(sizes[name] / 2)
