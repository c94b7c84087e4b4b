"""Rates: the learning rates that an optimizer will have, and the schedule that they make."""

from __future__ import annotations

import copy
import math
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from easypruner.base.checks import check_number
from easypruner.base.describe import describe
from easypruner.errors import ConfigError
from easypruner.strategies.regularizers.response import response_of
from easypruner.strategies.regularizers.schedule import Row, Schedule

_OWNER = 'regularize'
_HOOKS = '_optimizer_step_pre_hooks'


def schedule_of(optimizer: Optimizer, rates: Sequence[Row], model: nn.Module | None) -> Schedule:
    """Return the schedule of an optimizer's first parameter group, with those of all parameters.

    Args:
        optimizer: the optimizer.
        rates: the learning rate of each update, for each parameter group. Groups with the same
            rates share a row.
        model: the network whose parameters the optimizer trains; None for no names.

    Raises:
        ConfigError: a learning rate or a momentum cannot be used.
    """
    owner = type(optimizer).__name__
    names = {} if model is None else {p: name for name, p in model.named_parameters()}
    known: dict[tuple[int, str, int], Schedule] = {}
    by_parameter: dict[str, Schedule] = {}
    for group, row in zip(optimizer.param_groups, rates, strict=True):
        for parameter in group['params']:
            key = id(row), str(group.get('momentum')), parameter.dim()
            if key not in known:
                response = response_of(optimizer, group, parameter.dim())
                # Steps of an adaptive optimizer do not sum to lr / (1 - momentum).
                momentum = 0.0 if response.adaptive else float(group.get('momentum', 0.0))
                check_number(momentum, 'momentum', owner, least=0, below=1)
                _check_finite(row, owner)
                known[key] = Schedule(math.fsum(row), momentum, row.size, row, response)
            if parameter in names:
                by_parameter[names[parameter]] = known[key]
    first = next(iter(known.values()))
    return replace(first, by_parameter=by_parameter)


def _check_finite(rates: Row, optimizer: str) -> None:
    if not np.isfinite(rates).all():
        raise ConfigError(
            f'the learning rate of {optimizer} becomes {rates[~np.isfinite(rates)][0]} during the '
            'stage; expected finite numbers, so correct lr or param_scheduler'
        )


def predicted_rates(
    optimizer: Optimizer, updates: int, scheduler: Any = None, scheduler_every: int = 1
) -> list[Row]:
    """Return the learning rate of each of the next updates, for each parameter group.

    A copy of the scheduler is stepped; neither it nor the optimizer changes.

    Args:
        optimizer: the optimizer.
        updates: the number of updates.
        scheduler: a scheduler of torch or timm; a function of an update's number that returns the
            factor of the current learning rates, as the ``lr_lambda`` of torch's LambdaLR; None for
            constant learning rates.
        scheduler_every: the number of updates from one ``scheduler.step()`` to the next.

    Raises:
        ConfigError: the scheduler is of another kind or optimizer, depends on the training, or
            fails within the updates.
    """
    if scheduler is None:
        rates = [np.full(updates, _rate(group)) for group in optimizer.param_groups]
    elif _is_scheduler(scheduler):
        rates = list(_stepped(optimizer, updates, scheduler, scheduler_every))
    elif callable(scheduler) and not isinstance(scheduler, type):
        factors = np.array([float(scheduler(update)) for update in range(updates)])
        rates = [_rate(group) * factors for group in optimizer.param_groups]
    else:
        raise ConfigError(
            f'scheduler={describe(scheduler)} of {_OWNER}; expected a scheduler of torch or timm, '
            "or a function of an update's number that returns the factor of the learning rates"
        )
    known: dict[bytes, Row] = {}
    return [known.setdefault(row.tobytes(), row) for row in rates]


def _is_scheduler(value: Any) -> bool:
    return hasattr(value, 'step') and hasattr(value, 'optimizer') and not isinstance(value, type)


def _rate(group: dict[str, Any]) -> float:
    return float(group['lr'])


def _stepped(optimizer: Optimizer, updates: int, scheduler: Any, every: int) -> Iterator[Row]:
    """Yield the learning rates of each parameter group under a scheduler."""
    name = type(scheduler).__name__
    if isinstance(scheduler, ReduceLROnPlateau):
        raise ConfigError(
            f'scheduler={name} of {_OWNER}, whose learning rates depend on the training, so they '
            'cannot be known before; leave scheduler out, to count on the current learning rates'
        )
    twin, copied = _copy_of(scheduler, optimizer)
    found = np.empty((len(optimizer.param_groups), updates))
    for update in range(updates):
        found[:, update] = [_rate(group) for group in copied.param_groups]
        if update + 1 == updates:
            break
        try:
            _step(twin, update + 1, every)
        except Exception as error:
            raise ConfigError(
                f'scheduler={name} of {_OWNER} fails after {update + 1} of updates={updates}: '
                f'{type(error).__name__}: {error}; give both the same length, or '
                'scheduler_every=len(loader) if it is stepped once an epoch'
            ) from error
    yield from found


def _step(scheduler: Any, done: int, every: int) -> None:
    """Step a scheduler after an update, as a training does."""
    with warnings.catch_warnings():
        # Torch expects the optimizer to be stepped as well.
        warnings.simplefilter('ignore')
        if hasattr(scheduler, 'step_update'):
            # timm's schedulers get the numbers of updates and epochs.
            scheduler.step_update(done)
            if done % every == 0:
                scheduler.step(done // every)
        elif done % every == 0:
            scheduler.step()


def _copy_of(scheduler: Any, optimizer: Optimizer) -> tuple[Any, Optimizer]:
    """Return copies of a scheduler and of its optimizer, without parameters and their states."""
    stand_in = nn.Parameter(torch.zeros(()))
    parameters = [p for group in optimizer.param_groups for p in group['params']]
    memo: dict[int, Any] = {id(parameter): stand_in for parameter in parameters}
    memo[id(optimizer.state)] = defaultdict(dict)
    copied: Optimizer = copy.deepcopy(optimizer, memo)
    for other in _schedulers_in(scheduler):
        if inner_optimizer(other.optimizer) is not optimizer:
            raise ConfigError(
                f'scheduler={type(scheduler).__name__} of {_OWNER} belongs to another optimizer; '
                'give the scheduler of the optimizer that is pushed'
            )
        memo[id(other.optimizer)] = copied
    return copy.deepcopy(scheduler, memo), copied


def _schedulers_in(scheduler: Any) -> Iterator[Any]:
    """Yield a scheduler, and those that a chain or a sequence of torch's contains."""
    yield scheduler
    for part in getattr(scheduler, '_schedulers', ()):
        yield from _schedulers_in(part)


def inner_optimizer(optimizer: Any) -> Any:
    """Return the optimizer of torch inside wrappers such as Accelerate's or Lightning's.

    A wrapper with hooks of its own is an optimizer for itself, such as one that averages weights.
    """
    inner = getattr(optimizer, 'optimizer', None)
    if not isinstance(inner, Optimizer):
        return optimizer
    own = getattr(optimizer, _HOOKS, None)
    wraps = own is None or own is getattr(inner, _HOOKS, None)
    return inner_optimizer(inner) if wraps else optimizer
