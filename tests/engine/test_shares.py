"""A share of a schedule has the form of the whole, and ends where the whole ends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mmengine.config import Config

from easypruner.engine.schedule import acting, measure_schedule, overridden
from easypruner.engine.shares import Shares, compress, read_share
from easypruner.errors import ConfigError

WARM_UP = dict(type='LinearLR', start_factor=0.1, by_epoch=True, begin=0, end=20)
SCHEDULERS: dict[str, list[dict[str, Any]]] = {
    'steps': [dict(type='MultiStepLR', by_epoch=True, milestones=[30, 60, 90], gamma=0.1)],
    'cosine': [dict(type='CosineAnnealingLR', T_max=100, by_epoch=True, begin=0, end=100)],
    'warm-up': [
        WARM_UP,
        dict(type='CosineAnnealingLR', T_max=80, eta_min=1e-3, by_epoch=True, begin=20, end=100),
    ],
    'no end': [dict(type='CosineAnnealingLR', by_epoch=True)],
    'decay': [dict(type='StepLR', step_size=2, gamma=0.9, by_epoch=True)],
    'decay of each epoch': [dict(type='StepLR', step_size=1, gamma=0.9, by_epoch=True)],
    'exponential': [dict(type='ExponentialLR', gamma=0.9, by_epoch=True)],
    'polynomial': [dict(type='PolyLR', power=1.0, eta_min=1e-4, begin=0, end=100)],
    'restarts': [
        dict(type='CosineRestartLR', periods=[40, 60], restart_weights=[1, 0.5], eta_min=0.0)
    ],
    'iterations': [dict(type='CosineAnnealingLR', T_max=400, by_epoch=False, begin=0, end=400)],
}


def config_of(schedulers: Any, epochs: int = 100) -> Config:
    optimizer = dict(type='SGD', lr=0.8)
    return Config(
        dict(
            optim_wrapper=dict(optimizer=optimizer),
            param_scheduler=schedulers,
            train_cfg=dict(max_epochs=epochs),
        )
    )


def rates_of(config: Config, shares: Shares) -> np.ndarray[Any, Any]:
    merged = overridden(config, shares.applied({}, config, 'train'))
    rates = measure_schedule(merged, 4, shares.length(config, 'train')).rates
    return np.asarray(rates)


@pytest.mark.parametrize('name', SCHEDULERS)
def test_half_of_a_schedule_has_its_form(name: str) -> None:
    config = config_of(SCHEDULERS[name])
    whole, half = rates_of(config, Shares()), rates_of(config, Shares(epochs=0.5))
    assert len(half) * 2 == len(whole) == 400
    # A step of one epoch, compressed, is one of two: the decay is the same every two epochs.
    coarse = 8 if name.startswith('decay') else 4
    every = slice(None, None, coarse)
    # MMEngine divides lines by one less than their epochs.
    tolerance = 0.04 if name in ('warm-up', 'polynomial') else 1e-8
    assert half[every] == pytest.approx(whole[:: 2 * coarse], rel=1e-6, abs=tolerance)


@pytest.mark.parametrize('name', SCHEDULERS)
def test_the_whole_share_changes_nothing(name: str) -> None:
    config = config_of(SCHEDULERS[name])
    assert (rates_of(config, Shares(epochs=1.0)) == rates_of(config, Shares())).all()


def test_a_warm_up_of_less_than_half_an_epoch_is_left_out() -> None:
    config = config_of(SCHEDULERS['warm-up'])
    rates = rates_of(config, Shares(epochs=0.02))
    assert rates[0] == pytest.approx(0.8)
    assert len(rates) == 8
    assert rates[-1] < 0.5


def test_dropping_every_scheduler_leaves_the_learning_rate() -> None:
    assert set(rates_of(config_of([WARM_UP]), Shares(epochs=0.01))) == {0.8}


@pytest.mark.parametrize('epochs', range(1, 40))
def test_any_length_can_be_built_and_ends_low(epochs: int) -> None:
    config = config_of([WARM_UP, {**SCHEDULERS['warm-up'][1], 'eta_min': 0.0}])
    rates = rates_of(config, Shares(epochs=epochs / 100))
    assert len(rates) == 4 * epochs
    assert (rates > 0).all()
    assert rates[-1] <= rates.max()
    assert np.diff(rates[np.argmax(rates) :]).max(initial=0) <= 0


def test_a_share_of_the_learning_rate_scales_all_of_it() -> None:
    config = config_of(SCHEDULERS['warm-up'])
    assert rates_of(config, Shares(lr=0.1)) == pytest.approx(0.1 * rates_of(config, Shares()))


def test_weight_decay_is_not_a_learning_rate() -> None:
    scheduler = dict(type='CosineAnnealingWeightDecay', eta_min=0.2, begin=0, end=100)
    scaled = Shares(epochs=0.5, lr=0.1).applied({}, config_of([scheduler]), 'train')
    assert scaled['param_scheduler'] == [{**scheduler, 'end': 50}]


def test_schedulers_of_the_stage_stay() -> None:
    own = {'param_scheduler': dict(type='StepLR', step_size=7)}
    assert Shares(epochs=0.5).applied(own, config_of([WARM_UP]), 'train') == own


def test_the_learning_rate_of_the_stage_is_what_is_shared() -> None:
    own = {'optim_wrapper': {'optimizer': {'lr': 2.0, 'momentum': 0.5}}}
    scaled = Shares(lr=0.1).applied(own, config_of([WARM_UP]), 'train')
    assert scaled['optim_wrapper'] == {'optimizer': {'lr': 0.2, 'momentum': 0.5}}


@pytest.mark.parametrize('text', ['50 %', '12.5%', '200%'])
def test_shares_are_percent(text: str) -> None:
    assert read_share(text, 'epochs', 'Train') == float(text.rstrip(' %')) / 100


@pytest.mark.parametrize('value', ['0%', '50', 'half', '-5%', '1e9%', 'nan%', 0.5, None, True])
def test_other_values_are_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match="such as '50%'"):
        read_share(value, 'epochs', 'Train')


def test_a_config_that_counts_iterations_is_refused() -> None:
    config = Config(dict(train_cfg=dict(by_epoch=False, max_iters=90_000)))
    with pytest.raises(ConfigError, match=r'counts iterations: train_cfg.max_iters=90000'):
        Shares(epochs=0.5).length(config, 'train')


def test_an_optimizer_without_a_rate_is_refused() -> None:
    config = Config(dict(optim_wrapper=dict(optimizer=dict(type='SGD'))))
    with pytest.raises(ConfigError, match='has no lr'):
        Shares(lr=0.1).applied({}, config, 'train')


def test_the_given_scheduler_stays() -> None:
    before = dict(WARM_UP)
    assert compress(WARM_UP, 0.5) == {**before, 'end': 10}
    assert before == WARM_UP


def test_a_scheduler_that_would_begin_after_the_stage_is_left_out() -> None:
    late = dict(type='CosineAnnealingLR', by_epoch=True, begin=20)
    later = dict(type='CosineAnnealingLR', by_epoch=False, begin=40)
    assert acting([WARM_UP, late, later], 10, 40) == [WARM_UP]
    assert acting([WARM_UP, late, later], 21, 41) == [WARM_UP, late, later]
    assert acting(WARM_UP, 10, 40) == WARM_UP
    assert len(rates_of(config_of([WARM_UP, late], epochs=3), Shares())) == 12
