"""Sums of learning rates, compared with those of a real Runner's optimizer."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import DefaultScope
from mmpretrain.registry import OPTIMIZERS as MMPRETRAIN_OPTIMIZERS
from torch import nn

from easypruner.engine.runner import RunnerPlan, build_runner
from easypruner.engine.schedule import measure_schedule
from easypruner.errors import ConfigError
from easypruner.strategies import Schedule
from easypruner.strategies.regularizers.schedule import RAMPS
from tests.helpers.optimizers import moved_by_sgd
from tests.helpers.tiny import BATCH, TRAIN_IMAGES, original_model, tiny_config

EPOCHS = 4
EPOCH_LENGTH = TRAIN_IMAGES // BATCH
STEPPED = dict(type='MultiStepLR', by_epoch=True, milestones=[1, 3], gamma=0.1)
WARM_UP = dict(type='LinearLR', by_epoch=False, start_factor=0.25, end=5)

SCHEDULERS = {
    'none': None,
    'stepped': STEPPED,
    'warm-up': [WARM_UP, STEPPED],
    'cosine by epoch': dict(type='CosineAnnealingLR', by_epoch=True),
    'cosine by iteration': dict(
        type='CosineAnnealingLR', by_epoch=True, convert_to_iter_based=True
    ),
    'warm-up, then cosine': [
        dict(WARM_UP, by_epoch=True, end=1, convert_to_iter_based=True),
        dict(type='CosineAnnealingLR', by_epoch=True, begin=1, T_max=3, eta_min=0.01),
    ],
}


class Rates(Hook):
    """Records the learning rates of every optimizer update."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.of_parameters: dict[str, list[float]] = {}

    def before_train(self, runner: Any) -> None:
        names = {parameter: name for name, parameter in runner.model.named_parameters()}

        def record(optimizer: Any, *_: Any) -> None:
            self.rates.append(optimizer.param_groups[0]['lr'])
            for group in optimizer.param_groups:
                for parameter in group['params']:
                    self.of_parameters.setdefault(names[parameter], []).append(group['lr'])

        runner.optim_wrapper.optimizer.register_step_pre_hook(record)


@pytest.mark.parametrize('accumulation', [1, 5])
@pytest.mark.parametrize('scheduler', SCHEDULERS)
def test_the_sum_is_that_of_a_real_run(scheduler: str, accumulation: int, tmp_path: Path) -> None:
    content = tiny_config(param_scheduler=SCHEDULERS[scheduler], stages=None)
    content['optim_wrapper'] |= dict(accumulative_counts=accumulation)
    rates = Rates()
    build_runner(Config(content), RunnerPlan(tmp_path, 0, epochs=EPOCHS, hooks=[rates])).train()
    schedule = measure_schedule(content, EPOCH_LENGTH, EPOCHS)
    assert schedule.updates == len(rates.rates)
    assert schedule.lr_sum == pytest.approx(sum(rates.rates), rel=1e-12)
    assert schedule.momentum == 0.9


def test_the_released_recipe_has_the_reach_of_its_paper() -> None:
    """ResNet-50, batches of 256: 100 epochs of 5005 updates, 0.1 stepped at 30, 60 and 90."""
    content = tiny_config(
        param_scheduler=dict(type='MultiStepLR', by_epoch=True, milestones=[30, 60, 90])
    )
    schedule = measure_schedule(content, 5005, 100)
    assert schedule.lr_sum == pytest.approx(5005 * (30 * 0.1 + 30 * 0.01 + 30 * 1e-3 + 10 * 1e-4))
    assert schedule.reach_under(RAMPS['constant'], 5e-4) == pytest.approx(83.3, abs=0.1)


@pytest.mark.parametrize('options', [{}, {'nesterov': True}, {'dampening': 0.5}], ids=str)
def test_the_reach_is_the_distance_of_a_real_optimizer(options: dict[str, Any]) -> None:
    """In a short stage the momentum has not built up; in 5 updates, half is missing."""
    optimizer = dict(type='SGD', lr=0.1, momentum=0.9, **options)
    content = tiny_config(optim_wrapper=dict(optimizer=optimizer))
    for epochs in (1, 2, 40):
        schedule = measure_schedule(content, 5, epochs)
        rates = [0.05 * (1 + math.cos(math.pi * i / (5 * epochs))) for i in range(5 * epochs)]
        assert schedule.rates == pytest.approx(rates)
        moved = moved_by_sgd(rates, [0.3] * len(rates), 0.9, **options)
        assert schedule.reach_under(RAMPS['constant'], 0.3) == pytest.approx(moved)
        if not options:
            assert moved < (0.5 if epochs == 1 else 1.0) * 0.3 * sum(rates) / 0.1


@pytest.mark.parametrize('updates', [1, 5, 100])
def test_momentum_multiplies_after_it_has_built_up(updates: int) -> None:
    schedule = Schedule(lr_sum=0.02 * updates, momentum=0.9, updates=updates)
    moved = moved_by_sgd([0.02] * updates, [1.0] * updates, 0.9)
    assert schedule.reach_under(RAMPS['constant']) == pytest.approx(moved)
    assert moved < 0.2 * updates


def test_an_optimizer_without_momentum_reports_none() -> None:
    content = tiny_config(optim_wrapper=dict(optimizer=dict(type='Adam', lr=0.1)))
    assert measure_schedule(content, EPOCH_LENGTH, EPOCHS).momentum == 0.0


def test_rules_for_single_parameters_do_not_matter() -> None:
    content = tiny_config()
    content['optim_wrapper']['paramwise_cfg'] = dict(norm_decay_mult=0.0)
    assert measure_schedule(content, 3, 2) == measure_schedule(tiny_config(), 3, 2)


PARAMWISE = dict(
    custom_keys={'bn1': dict(lr_mult=0.1), 'stages.0': dict(lr_mult=3.0), 'fc': dict(lr_mult=0.0)},
)


@pytest.mark.parametrize('scheduler', ['none', 'warm-up, then cosine'])
def test_parameters_with_rates_of_their_own(scheduler: str, tmp_path: Path) -> None:
    content = tiny_config(param_scheduler=SCHEDULERS[scheduler], stages=None)
    content['optim_wrapper'] |= dict(paramwise_cfg=PARAMWISE, accumulative_counts=2)
    recorded = Rates()
    runner = build_runner(Config(content), RunnerPlan(tmp_path, 0, epochs=EPOCHS, hooks=[recorded]))
    schedule = measure_schedule(content, EPOCH_LENGTH, EPOCHS, runner.plain_model)
    runner.train()
    assert schedule.by_parameter.keys() == recorded.of_parameters.keys()
    for name, rates in recorded.of_parameters.items():
        own = schedule.by_parameter[name]
        assert own.rates == pytest.approx(rates, rel=1e-12), name
        assert (own.updates, own.momentum) == (len(rates), 0.9)
        assert own.reach_under(RAMPS['linear']) == pytest.approx(
            moved_by_sgd(rates, [i / len(rates) for i in range(len(rates))], 0.9)
        )
    sums = {name: sum(rates) for name, rates in recorded.of_parameters.items()}
    assert len({round(total, 9) for total in sums.values()}) == 4
    for names in itertools.combinations(sums, 2):
        assert schedule.slowest(names).lr_sum == pytest.approx(min(sums[name] for name in names))
    assert schedule.slowest(['backbone.bn1.weight', 'unknown']).lr_sum < schedule.lr_sum
    assert schedule.slowest(['unknown']) is schedule.slowest([]) is schedule


def test_optimizers_of_the_default_scope_are_known() -> None:
    def rates(name: str) -> list[float]:
        config = Config(dict(optim_wrapper=dict(optimizer=dict(type=name, lr=0.1))))
        return list(measure_schedule(config, 2, 2, nn.Linear(2, 2)).rates)

    with DefaultScope.overwrite_default_scope('mmpretrain'):
        MMPRETRAIN_OPTIMIZERS.import_from_location()
        own = list(MMPRETRAIN_OPTIMIZERS.module_dict)
        assert {'Lamb', 'LARS'} <= set(own)
        for name in (*own, 'SGD', 'mmpretrain.Lamb'):
            assert rates(name) == pytest.approx([0.1] * 4)
        with pytest.raises(ConfigError, match="'Lambb'; did you mean 'Lamb'"):
            rates('Lambb')


def test_without_rules_all_parameters_have_one_schedule() -> None:
    content = tiny_config()
    model = original_model()
    schedule = measure_schedule(content, EPOCH_LENGTH, EPOCHS, model)
    assert schedule.by_parameter.keys() == dict(model.named_parameters()).keys()
    assert all(own == schedule for own in schedule.by_parameter.values())
    assert schedule == measure_schedule(content, EPOCH_LENGTH, EPOCHS)


def schedule(epochs: int, length: int, *schedulers: dict[str, Any], **optimizer: Any) -> Schedule:
    config = dict(
        optim_wrapper=dict(optimizer={'type': 'SGD', 'lr': 0.1, **optimizer}),
        param_scheduler=list(schedulers),
    )
    return measure_schedule(config, length, epochs)


def test_a_long_stage_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    cosine = dict(type='CosineAnnealingLR', by_epoch=True, convert_to_iter_based=True)
    whole = schedule(10, 1000, STEPPED, cosine)
    monkeypatch.setattr('easypruner.engine.schedule._SAMPLED', 2000)
    sampled = schedule(10, 1000, STEPPED, cosine)
    assert sampled.updates == whole.updates == 10_000
    assert sampled.lr_sum == pytest.approx(whole.lr_sum, rel=1e-3)
    counted = schedule(10, 1000, WARM_UP)
    assert counted.rates is not None
    assert len(set(counted.rates.tolist())) == 5, 'a scheduler of iterations is not sampled'


@pytest.mark.parametrize('epochs', [10**7, 10**30])
def test_a_stage_without_an_end_is_refused(epochs: int) -> None:
    with pytest.raises(ConfigError, match=f'{epochs} epochs of 3 iterations; expected at most'):
        schedule(epochs, 3)


@pytest.mark.parametrize(
    ('optimizer', 'reported'),
    [
        (dict(momentum=1), 'momentum=1.0 of SGD; expected a number of at least 0 and below 1'),
        (dict(momentum=2**63), 'momentum'),
        (dict(lr=math.inf), 'the learning rate of SGD becomes inf'),
    ],
)
def test_numbers_without_a_finite_reach_are_refused(
    optimizer: dict[str, Any], reported: str
) -> None:
    with pytest.raises(ConfigError, match=reported):
        schedule(2, 3, **optimizer)
