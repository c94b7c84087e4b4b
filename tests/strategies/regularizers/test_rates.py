"""The learning rates that are predicted are those of a training."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim import lr_scheduler as schedulers

from easypruner.errors import ConfigError
from easypruner.strategies.regularizers.rates import inner_optimizer, predicted_rates, schedule_of

UPDATES, EPOCH = 12, 4


def make_optimizer() -> SGD:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    groups = [{'params': net[0].parameters()}, {'params': net[1].parameters(), 'lr': 0.5}]
    return SGD(groups, lr=0.1, momentum=0.9)


def sequential(optimizer: Optimizer) -> Any:
    parts = [schedulers.LinearLR(optimizer, 0.1), schedulers.CosineAnnealingLR(optimizer, 8)]
    return schedulers.SequentialLR(optimizer, parts, milestones=[4])


def chained(optimizer: Optimizer) -> Any:
    parts = [schedulers.ConstantLR(optimizer, 0.5), schedulers.ExponentialLR(optimizer, 0.9)]
    return schedulers.ChainedScheduler(parts, optimizer=optimizer)


MAKE: dict[str, Callable[[Optimizer], Any]] = {
    'step': lambda optimizer: schedulers.StepLR(optimizer, 1),
    'cosine': lambda optimizer: schedulers.CosineAnnealingLR(optimizer, UPDATES),
    'one cycle': lambda optimizer: schedulers.OneCycleLR(optimizer, 1.0, total_steps=UPDATES),
    'lambda': lambda optimizer: schedulers.LambdaLR(optimizer, lambda step: 1 / (1 + step)),
    'restarts': lambda optimizer: schedulers.CosineAnnealingWarmRestarts(optimizer, 3),
    'sequential': sequential,
    'chained': chained,
}


def real_rates(optimizer: Optimizer, step: Callable[[int], object]) -> np.ndarray:
    """Train, and return the learning rate of each group at each update."""
    rates = []
    for update in range(UPDATES):
        rates.append([float(group['lr']) for group in optimizer.param_groups])
        optimizer.step()
        step(update + 1)
    return np.array(rates).T


@pytest.mark.parametrize('started', [0, 2])
@pytest.mark.parametrize('every', [1, EPOCH])
@pytest.mark.parametrize('kind', MAKE)
def test_schedulers_of_torch(kind: str, every: int, started: int) -> None:
    optimizer = make_optimizer()
    scheduler = MAKE[kind](optimizer)
    for _ in range(started):
        optimizer.step()
        scheduler.step()
    before = copy.deepcopy((scheduler.state_dict(), optimizer.state_dict()))
    if kind == 'one cycle' and started and every == 1:
        with pytest.raises(ConfigError, match='OneCycleLR of regularize fails after 11 of updates'):
            predicted_rates(optimizer, UPDATES, scheduler, every)
        return
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        found = predicted_rates(optimizer, UPDATES, scheduler, every)
    assert repr((scheduler.state_dict(), optimizer.state_dict())) == repr(before) or kind in (
        'sequential', 'chained', 'lambda',
    )  # fmt: skip
    assert [group['lr'] for group in optimizer.param_groups] == [
        group['lr'] for group in before[1]['param_groups']
    ]
    real = real_rates(optimizer, lambda done: scheduler.step() if done % every == 0 else None)
    np.testing.assert_array_equal(np.stack(found), real)


@pytest.mark.parametrize('by_epoch', [True, False])
def test_schedulers_of_timm(by_epoch: bool) -> None:
    scheduler_module = pytest.importorskip('timm.scheduler')
    optimizer = make_optimizer()
    scheduler = scheduler_module.CosineLRScheduler(
        optimizer,
        t_initial=UPDATES // EPOCH if by_epoch else UPDATES,
        warmup_t=1 if by_epoch else 3,
        warmup_lr_init=1e-3,
        t_in_epochs=by_epoch,
    )
    found = predicted_rates(optimizer, UPDATES, scheduler, EPOCH)

    def step(done: int) -> None:
        scheduler.step_update(done)
        if done % EPOCH == 0:
            scheduler.step(done // EPOCH)

    np.testing.assert_array_equal(np.stack(found), real_rates(optimizer, step))


def test_a_function_gives_factors_and_nothing_constant_rates() -> None:
    optimizer = make_optimizer()
    first, second = predicted_rates(optimizer, 3, lambda update: 1 - update / 4)
    np.testing.assert_allclose(first, [0.1, 0.075, 0.05])
    np.testing.assert_allclose(second, [0.5, 0.375, 0.25])
    assert [row.tolist() for row in predicted_rates(optimizer, 2)] == [[0.1, 0.1], [0.5, 0.5]]


def test_each_parameter_has_the_schedule_of_its_group() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    groups = [
        {'params': net[0].parameters(), 'momentum': 0.5},
        {'params': net[1].parameters(), 'lr': 0.5},
    ]
    optimizer = SGD(groups, lr=0.1, momentum=0.9)
    schedule = schedule_of(optimizer, predicted_rates(optimizer, 4), net)
    own = schedule.by_parameter
    assert (own['0.weight'].momentum, own['0.bias'].lr_sum) == (0.5, pytest.approx(0.4))
    assert (own['1.weight'].momentum, own['1.bias'].lr_sum) == (0.9, pytest.approx(2.0))
    assert schedule.updates == 4


def test_wrappers_are_opened_and_optimizers_that_wrap_others_are_not() -> None:
    inner = make_optimizer()

    class Accelerated(Optimizer):
        def __init__(self, optimizer: Optimizer) -> None:
            self.optimizer = optimizer

    class Averaging(Optimizer):
        def __init__(self, optimizer: Optimizer) -> None:
            super().__init__(optimizer.param_groups, {})
            self.optimizer = optimizer

    assert inner_optimizer(Accelerated(Accelerated(inner))) is inner
    averaging = Averaging(inner)
    assert inner_optimizer(averaging) is averaging


def test_long_schedules_do_not_copy_weights() -> None:
    weight = nn.Parameter(torch.empty(0))
    optimizer = SGD([weight], lr=0.1)
    optimizer.state[weight]['momentum_buffer'] = pytest  # deepcopy of a module would fail
    scheduler = schedulers.StepLR(optimizer, 2)
    (rates,) = predicted_rates(optimizer, 4, scheduler)
    np.testing.assert_allclose(rates, [0.1, 0.1, 0.01, 0.01])
