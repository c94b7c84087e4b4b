"""HoyerSquare against the paper's measure of each layer, written with loops."""

from __future__ import annotations

import pytest
import torch
from easypruner_plugins.hoyer_square import HoyerSquare
from torch import Tensor, nn

from easypruner import Progress
from easypruner.errors import ConfigError, EasyPrunerError
from easypruner.testing.networks import Dense, Plain, Residual
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

FACTOR = RAMP * GRAD_SCALE
ONCE = Progress(0, 1)


def measure(values: list[Tensor]) -> Tensor:
    return sum(value.abs() for value in values) ** 2 / sum(value**2 for value in values)


def scales_by_hand(case: Case) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for name, module in case.scales().items():
        factors = [factor for factor, _ in case.channels(name)]
        total = total + STRENGTH * sum(factors) / len(factors) * measure(list(module.weight))
    return total


def weights_by_hand(case: Case) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for name, group in case.graph.groups.items():
        for member in group.producers:
            weight = case.graph.parameter(member.param)
            norms = []
            for indices in member.index.tolist():
                parts = [(weight.select(member.dim, index) ** 2).sum() for index in indices]
                norms.append(torch.sqrt(torch.stack(parts).sum()))
            total = total + STRENGTH * case.factor(name) * measure(norms)
    return total


@pytest.mark.parametrize('build', [build for build in NETWORKS if build is not Volume])
def test_the_gradient_on_scales(build: type[nn.Module]) -> None:
    given = make_case(build)
    regularizer = HoyerSquare(STRENGTH, strength_schedule='linear', group_strengths=given.strengths)
    assert_same(
        added_gradients(regularizer, given),
        penalty_gradients(scales_by_hand(given), given.model),
        FACTOR,
    )


@pytest.mark.parametrize('build', NETWORKS)
def test_the_gradient_on_weights(build: type[nn.Module]) -> None:
    given = make_case(build)
    regularizer = HoyerSquare(
        STRENGTH, 'weights', strength_schedule='linear', group_strengths=given.strengths
    )
    assert_same(
        added_gradients(regularizer, given),
        penalty_gradients(weights_by_hand(given), given.model),
        FACTOR,
    )


@pytest.mark.parametrize('on', ['scales', 'weights'])
def test_the_penalty_has_this_gradient(on: str) -> None:
    given = make_case(Dense)
    regularizer = HoyerSquare(STRENGTH, on, group_strengths=given.strengths)
    penalty = regularizer.penalty(given.graph, None)
    by_hand = scales_by_hand(given) if on == 'scales' else weights_by_hand(given)
    torch.testing.assert_close(penalty, by_hand)
    assert_same(
        added_gradients(regularizer, given, None, ONCE), penalty_gradients(penalty, given.model), 1
    )


@pytest.mark.parametrize('on', ['scales', 'weights'])
def test_a_layer_of_zeros_contributes_zero(on: str) -> None:
    given = make_case(Residual)
    with torch.no_grad():
        given.model.stem[0].weight.zero_()
        given.model.stem[1].weight.zero_()
        given.model.branch[1].weight[2] = 0
    regularizer = HoyerSquare(STRENGTH, on)
    actual = added_gradients(regularizer, given, None, ONCE)
    assert not actual['stem.0.weight'].any() and not actual['stem.1.weight'].any()
    assert all(bool(gradient.isfinite().all()) for gradient in actual.values())
    penalty = regularizer.penalty(given.graph, None)
    assert_same(actual, penalty_gradients(penalty, given.model), 1)


def test_equal_scales_have_the_largest_measure_and_do_not_move() -> None:
    given = make_case(Plain)
    with torch.no_grad():
        for module in given.scales().values():
            module.weight.fill_(0.75)
    penalty = HoyerSquare(1.0).penalty(given.graph, None)
    assert penalty.item() == pytest.approx(8 + 12)
    for gradient in added_gradients(HoyerSquare(1.0), given, None, ONCE).values():
        assert gradient.abs().max() < 1e-12


@pytest.mark.parametrize('on', ['scales', 'weights'])
def test_a_group_of_one_unit_does_not_move(on: str) -> None:
    given = make_narrow_case(Plain)
    actual = added_gradients(HoyerSquare(1.0, on), given, None, ONCE)
    layer = {'scales': 'body.0.1.weight', 'weights': 'body.0.0.weight'}[on]
    other = {'scales': 'body.1.1.weight', 'weights': 'body.1.0.weight'}[on]
    assert actual[layer].abs().max() < 1e-12 and actual[other].any()


def test_in_a_network_without_scales_weights_are_pushed() -> None:
    given = make_case(Volume)
    with pytest.raises(EasyPrunerError, match='none to push in this Volume'):
        HoyerSquare(1.0).largest(given.graph, None)
    assert HoyerSquare(1.0, 'weights').largest(given.graph, None) == 0
    with pytest.raises(EasyPrunerError, match='group_strengths exclude'):
        HoyerSquare(1.0, 'weights', group_strengths={'*': 0}).largest(given.graph, None)


@pytest.mark.parametrize('arguments', [{'on': 'weight'}, {'scales': ('norm',)}])
def test_invalid_arguments_are_refused(arguments: dict) -> None:
    with pytest.raises(ConfigError, match='HoyerSquare'):
        HoyerSquare(1.0, **arguments)
