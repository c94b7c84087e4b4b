"""GReg: an L2 penalty on units to be removed, whose factor grows as in the paper's algorithm 1."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from easypruner_plugins.greg import GReg
from torch import Tensor, nn
from torch.optim import AdamW

from easypruner import Masks, Progress, Schedule
from easypruner.errors import ConfigError
from easypruner.strategies.regularizers.response import SimulatedResponse
from easypruner.testing.networks import Dense, Plain
from tests.helpers.networks import NETWORKS, Shared
from tests.helpers.optimizers import moved_by_sgd
from tests.helpers.pushes import (
    GRAD_SCALE,
    PROGRESS,
    Case,
    added_gradients,
    assert_same,
    make_case,
    make_narrow_case,
    penalty_gradients,
)


def algorithm(delta: float, every: int, ceiling: float, update: int) -> float:
    """Return lambda after a number of updates, counted one by one."""
    factor = 0.0
    for done in range(update + 1):
        if done % every == 0:
            factor = min(factor + delta, ceiling)
    return factor


def by_hand(case: Case, over: str) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for group, unit, slices in case.units(over):
        if not case.masks[group][unit]:
            for part in slices:
                total = total + case.factor(group) / 2 * (part**2).sum()
    return total


@pytest.mark.parametrize('over', ['producers', 'group'])
@pytest.mark.parametrize('build', NETWORKS)
def test_the_gradient_is_that_of_the_growing_penalty(build: type[nn.Module], over: str) -> None:
    given = make_case(build)
    regularizer = GReg(0.01, every=3, ceiling=0.035, over=over, group_strengths=given.strengths)
    expected = penalty_gradients(by_hand(given, over), given.model)
    for update in (0, 2, 3, 9, 30):
        progress = replace(PROGRESS, update=update, updates=40)
        factor = algorithm(0.01, 3, 0.035, update)
        assert_same(
            added_gradients(regularizer, given, given.masks, progress),
            expected,
            factor * GRAD_SCALE,
        )


def test_the_defaults_are_those_of_the_paper() -> None:
    regularizer = GReg()
    for update in (0, 9, 10, 25, 1000, 99_989, 99_990, 500_000):
        rises = update // 10 + 1
        assert regularizer.factor(update) == pytest.approx(min(1e-4 * rises, 1.0))


@pytest.mark.parametrize('build', [Dense, Shared])
def test_the_penalty_is_that_at_the_ceiling(build: type[nn.Module]) -> None:
    given = make_case(build)
    regularizer = GReg(0.5, every=1, ceiling=0.75, group_strengths=given.strengths)
    penalty = regularizer.penalty(given.graph, given.masks)
    torch.testing.assert_close(penalty, 0.75 * by_hand(given, 'producers'))
    at_ceiling = Progress(5, 6)
    actual = added_gradients(regularizer, given, given.masks, at_ceiling)
    assert_same(actual, penalty_gradients(penalty, given.model), 1)


def test_the_reach_is_the_exponent_of_what_is_left() -> None:
    rates = np.full(400, 0.01)
    schedule = Schedule(float(rates.sum()), 0.0, 400, rates)
    regularizer = GReg(0.05, every=10, ceiling=1.5)
    weight = 1.0
    for update in range(400):
        weight -= 0.01 * algorithm(0.05, 10, 1.5, update) * weight
    assert np.exp(-regularizer.reach(schedule)) == pytest.approx(weight, rel=0.05)


def test_a_reach_determines_the_increase() -> None:
    rates = np.linspace(0.1, 0.01, 300)
    schedule = Schedule(float(rates.sum()), 0.9, 300, rates)
    regularizer = GReg({'reach': 7.0})
    regularizer.schedule(schedule)
    factors = [algorithm(regularizer.strength, 10, 1.0, update) for update in range(300)]
    assert moved_by_sgd(rates, factors, 0.9) == pytest.approx(7.0)
    assert regularizer.reach(schedule) == pytest.approx(7.0)
    with pytest.raises(ConfigError, match='with a ceiling of'):
        GReg({'reach': 7.0}, ceiling=0.01).schedule(schedule)
    with pytest.raises(ConfigError, match='sum to 0'):
        GReg({'reach': 7.0}).schedule(Schedule(0.0, 0.9, 0, np.empty(0)))


def test_under_adamw_the_growing_factor_shrinks_filters_by_its_shares() -> None:
    """A closed form: without a loss, the product of 1 - lr * lambda is left of a filter."""
    given, rate, updates = make_case(Plain), 0.01, 40
    optimizer = AdamW(given.model.parameters(), lr=rate, weight_decay=0.0)
    options = {name: value for name, value in optimizer.param_groups[0].items() if name != 'params'}
    schedule = Schedule(rate * updates, 0.0, updates, response=SimulatedResponse(AdamW, options))
    before = {name: p.detach().clone() for name, p in given.model.named_parameters()}
    regularizer = GReg(2.0, every=4, ceiling=15.0)
    regularizer.schedule(schedule)
    for update in range(updates):
        for parameter in given.model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        progress = Progress(update, updates, lr=rate, optimizer=optimizer)
        regularizer.before_step(given.graph, given.masks, progress)
        optimizer.step()
        regularizer.after_step(given.graph, given.masks, progress)
    left = np.prod([1 - rate * algorithm(2.0, 4, 15.0, update) for update in range(updates)])
    assert left < np.exp(-regularizer.reach(schedule)) < 1.5 * left < 0.05
    for name, group in given.graph.groups.items():
        weight, start = given.graph.parameter(f'{name}.weight'), before[f'{name}.weight']
        for unit in range(group.size):
            share = 1.0 if given.masks[name][unit] else float(left)
            torch.testing.assert_close(weight[unit].detach(), share * start[unit])


def test_the_ceiling_that_is_named_is_enough() -> None:
    schedule = Schedule(0.138, 0.0, 138)
    with pytest.raises(ConfigError, match='as with ceiling=') as error:
        GReg({'reach': 7.0}, every=1).schedule(schedule)
    ceiling = float(re.search(r'ceiling=([\d.e+]+)$', str(error.value))[1])  # type: ignore[index]
    regularizer = GReg({'reach': 7.0}, every=1, ceiling=ceiling)
    regularizer.schedule(schedule)
    assert regularizer.reach(schedule) == pytest.approx(7.0)
    assert regularizer.factor(69) < 0.6 * ceiling, 'the factor grows until the end'


def test_masks_are_needed() -> None:
    given = make_case(Plain)
    with pytest.raises(ConfigError, match='SelectMask'):
        GReg().largest(given.graph, None)
    assert GReg().largest(given.graph, Masks()) == 0


def test_a_group_of_one_unit() -> None:
    given = make_narrow_case(Plain)
    weight = given.model.body[0][0].weight.detach()
    actual = added_gradients(GReg(0.5), given, given.masks, Progress(0, 1))['body.0.0.weight']
    torch.testing.assert_close(actual, 0.5 * weight)
    assert GReg(0.5).largest(given.graph, given.masks) >= float(weight.norm())


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        ({'strength': -1.0}, 'strength='),
        ({'every': 0}, 'every='),
        ({'every': 2.5}, 'every='),
        ({'ceiling': -1.0}, 'ceiling='),
        ({'over': 'groups'}, "did you mean 'group'"),
    ],
)
def test_invalid_arguments_are_refused(arguments: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        GReg(**arguments)
