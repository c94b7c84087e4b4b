"""Polarization against equation 2 of its paper, written with loops."""

from __future__ import annotations

import math

import pytest
import torch
from easypruner_plugins.polarization import Polarization
from torch import Tensor, nn

import easypruner
from easypruner import Progress
from easypruner.errors import ConfigError, EasyPrunerError
from easypruner.testing import example_inputs, randomized_network
from easypruner.testing.networks import Plain, Residual
from tests.helpers.networks import NETWORKS, Volume
from tests.helpers.pushes import (
    GRAD_SCALE,
    RAMP,
    STRENGTH,
    Case,
    added_gradients,
    assert_same,
    make_case,
    make_narrow_case,
    penalty_gradients,
)

ONCE = Progress(0, 1)


def by_hand(case: Case, t: float, plain: bool = False, bound: float = math.inf) -> Tensor:
    terms = [
        (1.0 if plain else factor, module.weight[channel])
        for name, module in case.scales().items()
        for channel, (factor, _) in enumerate(case.channels(name))
    ]
    mean = sum(scale for _, scale in terms) / len(terms)
    total = torch.zeros((), dtype=torch.float64)
    for factor, scale in terms:
        reached = scale if -bound < scale < bound else bound * scale.sign().detach()
        total = total + STRENGTH * factor * (t * scale.abs() - (reached - mean).abs())
    return total


@pytest.mark.parametrize('t', [0.0, 1.2])
@pytest.mark.parametrize('build', [build for build in NETWORKS if build is not Volume])
def test_the_gradient_is_that_of_the_formula(build: type[nn.Module], t: float) -> None:
    given = make_case(build)
    regularizer = Polarization(
        STRENGTH, t, strength_schedule='linear', group_strengths=given.strengths
    )
    expected = penalty_gradients(by_hand(given, t), given.model)
    assert_same(added_gradients(regularizer, given), expected, RAMP * GRAD_SCALE)


@pytest.mark.parametrize('bound', [0.9, 1.2])
def test_above_the_bound_only_l1_is_left(bound: float) -> None:
    given = make_case(Residual)
    regularizer = Polarization(STRENGTH, group_strengths=given.strengths, bound=bound)
    scales = torch.cat([module.weight for module in given.scales().values()])
    assert (scales.abs() > bound).any() and (scales.abs() < bound).any()
    expected = penalty_gradients(by_hand(given, 1.2, bound=bound), given.model)
    assert_same(added_gradients(regularizer, given, None, ONCE), expected, 1)
    assert_same(penalty_gradients(regularizer.penalty(given.graph, None), given.model), expected, 1)


def test_a_bound_limits_the_scales() -> None:
    def largest(bound: float | None) -> float:
        model = randomized_network(Plain).double()
        graph = easypruner.trace(model, example_inputs().double())
        scales = [m.weight for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        with torch.no_grad():
            for scale in scales:
                scale.copy_(torch.linspace(0.01, 0.9, len(scale)) ** 4)
        regularizer = Polarization(1.0, bound=bound)
        optimizer = torch.optim.SGD(scales, lr=0.01)
        for update in range(600):
            optimizer.zero_grad()
            regularizer.add_gradient(graph, None, Progress(update, 600))
            optimizer.step()
        return max(float(scale.detach().abs().max()) for scale in scales)

    assert largest(None) > 1.2
    assert 0.9 < largest(1.0) < 1.05


def test_the_penalty_is_the_formula_at_the_papers_t() -> None:
    given = make_case(Residual)
    penalty = Polarization(STRENGTH).penalty(given.graph, None)
    torch.testing.assert_close(penalty, by_hand(given, 1.2, plain=True))
    actual = added_gradients(Polarization(STRENGTH), given, None, ONCE)
    assert_same(actual, penalty_gradients(penalty, given.model), 1)


def test_it_pushes_small_scales_down_and_large_ones_less() -> None:
    given = make_case(Plain)
    with torch.no_grad():
        for module in given.scales().values():
            module.weight.copy_(torch.linspace(0.01, 1.0, len(module.weight)))
    gradient = added_gradients(Polarization(1.0), given, None, ONCE)['body.0.1.weight']
    assert (gradient[:4] > gradient[4:]).all()


def test_scales_that_do_not_count_are_not_in_the_mean() -> None:
    given = make_case(Plain)
    with torch.no_grad():
        given.model.body[1][1].weight.fill_(1e6)
    actual = added_gradients(
        Polarization(1.0, group_strengths={'body.1.0': 0.0}), given, None, ONCE
    )
    scales = given.model.body[0][1].weight
    alone = 1.2 * scales.abs().sum() - (scales - scales.mean()).abs().sum()
    torch.testing.assert_close(actual['body.0.1.weight'], torch.autograd.grad(alone, scales)[0])
    assert not actual['body.1.1.weight'].any()


@pytest.mark.parametrize(('value', 'sign'), [(0.75, 1.0), (0.0, 0.0), (-0.5, -1.0)])
def test_equal_scales_are_all_pushed_equally(value: float, sign: float) -> None:
    given = make_case(Plain)
    with torch.no_grad():
        for module in given.scales().values():
            module.weight.fill_(value)
    for name in given.scales():
        gradient = added_gradients(Polarization(1.0), given, None, ONCE)[name]
        torch.testing.assert_close(gradient, torch.full_like(gradient, 1.2 * sign))


def test_a_group_of_one_unit() -> None:
    given = make_narrow_case(Plain)
    expected = penalty_gradients(by_hand(given, 1.2, plain=True), given.model)
    assert_same(added_gradients(Polarization(STRENGTH), given, None, ONCE), expected, 1)


def test_a_network_without_scales_is_refused() -> None:
    given = make_case(Volume)
    with pytest.raises(EasyPrunerError, match='none to push in this Volume'):
        Polarization(1.0).largest(given.graph, None)


@pytest.mark.parametrize(
    'arguments', [{'t': -1.0}, {'t': 'much'}, {'bound': -1}, {'scales': ('norm',)}]
)
def test_invalid_arguments_are_refused(arguments: dict) -> None:
    with pytest.raises(ConfigError, match='Polarization'):
        Polarization(1.0, **arguments)
