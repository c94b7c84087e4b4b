"""Sums of learning rates, compared with those of a real Runner's optimizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config
from mmengine.hooks import Hook

from easypruner.engine.runner import RunnerPlan, build_runner
from easypruner.engine.schedule import measure_schedule
from easypruner.strategies import Schedule
from tests.helpers.tiny import BATCH, TRAIN_IMAGES, tiny_config

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
    """Records the learning rate of every optimizer update."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def before_train(self, runner: Any) -> None:
        optimizer = runner.optim_wrapper.optimizer
        optimizer.register_step_pre_hook(
            lambda *_: self.rates.append(optimizer.param_groups[0]['lr'])
        )


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
    assert 5e-4 * schedule.reach_per_strength == pytest.approx(83.3, abs=0.1)


def test_momentum_divides() -> None:
    assert Schedule(lr_sum=2.0, momentum=0.9, updates=1).reach_per_strength == pytest.approx(20)


def test_an_optimizer_without_momentum_reports_none() -> None:
    content = tiny_config(optim_wrapper=dict(optimizer=dict(type='Adam', lr=0.1)))
    assert measure_schedule(content, EPOCH_LENGTH, EPOCHS).momentum == 0.0


def test_rules_for_single_parameters_do_not_matter() -> None:
    content = tiny_config()
    content['optim_wrapper']['paramwise_cfg'] = dict(norm_decay_mult=0.0)
    assert measure_schedule(content, 3, 2) == measure_schedule(tiny_config(), 3, 2)
