"""Ramps: their values, and the reach of a strength that follows one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from easypruner_plugins.global_sparsity import GlobalSparsity
from hypothesis import given, settings
from hypothesis import strategies as st

from easypruner import Progress, Schedule
from easypruner.errors import ConfigError
from easypruner.strategies.regularizers.schedule import RAMPS, MomentumResponse, ramp_of
from tests.helpers.optimizers import moved_by_sgd

VALUES = {
    'constant': lambda share: 1.0,
    'linear': lambda share: share,
    'cosine': lambda share: (1 - math.cos(math.pi * share)) / 2,
    'warmup': lambda share: min(share / 0.1, 1.0),
}


def test_every_ramp_is_tested() -> None:
    assert VALUES.keys() == RAMPS.keys()


@pytest.mark.parametrize('name', VALUES)
def test_values(name: str) -> None:
    shares = np.linspace(0, 1, 21)
    expected = [VALUES[name](share) for share in shares]
    ramp = ramp_of(name, 'Me')
    np.testing.assert_allclose(ramp(shares), expected)
    np.testing.assert_allclose([float(ramp(share)) for share in shares], expected)


def test_a_warmup_over_another_share() -> None:
    ramp = ramp_of({'warmup': 0.5}, 'Me')
    assert [float(ramp(share)) for share in (0.0, 0.25, 0.5, 1.0)] == [0.0, 0.5, 1.0, 1.0]


@pytest.mark.parametrize(
    'schedule', ['liner', {'warmup': 0}, {'warmup': 1.5}, {'warmup': True}, {'warm': 0.1}, 3, None]
)
def test_an_invalid_schedule_is_refused(schedule: object) -> None:
    with pytest.raises(ConfigError, match=r'strength_schedule=.* of Me; expected'):
        ramp_of(schedule, 'Me')


@pytest.mark.parametrize('name', [*VALUES, {'warmup': 0.3}])
def test_the_reach_is_the_sum_of_all_steps(name: str | dict) -> None:
    rates = np.array([0.4, 0.3, 0.25, 0.2, 0.1])
    schedule = Schedule(float(rates.sum()), 0.9, 5, rates)
    regularizer = GlobalSparsity(2.0, strength_schedule=name)
    strengths = [regularizer.strength_at(Progress(update, 5)) for update in range(5)]
    moved = moved_by_sgd(rates, strengths, 0.9)
    assert regularizer.reach(schedule) == pytest.approx(moved)
    picked = GlobalSparsity({'reach': 5.0}, strength_schedule=name)
    picked.schedule(schedule)
    assert picked.reach(schedule) == pytest.approx(5.0)
    assert picked.strength == pytest.approx(2.0 * 5.0 / moved)


@pytest.mark.parametrize('name', [*VALUES, {'warmup': 0.3}])
def test_the_reach_of_thresholds_is_the_sum_of_all_thresholds(name: str | dict) -> None:
    rates = np.array([0.4, 0.3, 0.25, 0.2, 0.1])
    schedule = Schedule(float(rates.sum()), 0.9, 5, rates)
    regularizer = GlobalSparsity(2.0, strength_schedule=name, apply='proximal')
    strengths = [regularizer.strength_at(Progress(update, 5)) for update in range(5)]
    assert regularizer.reach(schedule) == pytest.approx(float(rates @ strengths) / (1 - 0.9))


@settings(deadline=None)
@given(
    steps=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 10)), min_size=1, max_size=60),
    momentum=st.floats(0, 0.999),
    dampening=st.floats(0, 1),
    nesterov=st.booleans(),
)
def test_the_distance_under_sgd_is_that_of_torch(
    steps: list[tuple[float, float]], momentum: float, dampening: float, nesterov: bool
) -> None:
    nesterov = nesterov and momentum > 0
    dampening = 0.0 if nesterov or not momentum else dampening
    rates, gradients = np.array(steps).T
    response = MomentumResponse(momentum, dampening, nesterov)
    given = gradients.copy()
    distance = response.distance(rates, given)
    expected = moved_by_sgd(rates, gradients, momentum, dampening=dampening, nesterov=nesterov)
    assert distance == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert (given == gradients).all()
    assert not response.adaptive


def test_a_reach_under_a_sum_of_rates_and_no_updates() -> None:
    ramp = ramp_of('linear', 'Me')
    assert Schedule(2.0, 0.0, 4).reach_under(ramp) == pytest.approx(2.0 * (0 + 1 + 2 + 3) / 16)
    assert Schedule(0.0, 0.0, 0).reach_under(ramp) == 0
