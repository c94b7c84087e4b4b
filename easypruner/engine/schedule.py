"""The learning rates of a training stage, computed from its config without any data."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import OPTIMIZERS, PARAM_SCHEDULERS, Registry
from torch import nn

from easypruner.errors import ConfigError, nearest
from easypruner.strategies import Schedule

_OF_PARAMETERS = ('constructor', 'paramwise_cfg')


def overridden(config: Config, changes: Mapping[str, Any]) -> Config:
    """Return a copy of a config in which a stage's own settings replace those of the config.

    Dicts are merged, but schedulers are replaced as a whole, because each type of scheduler has
    its own arguments.
    """
    result: Config = copy.deepcopy(config)
    if changes.get('param_scheduler') is not None:
        result.pop('param_scheduler', None)
    result.merge_from_dict(dict(changes))
    return result


def measure_schedule(config: Mapping[str, Any], epoch_length: int, epochs: int) -> Schedule:
    """Return the learning rates of a stage, by stepping its schedulers on a dummy optimizer.

    Args:
        config: a config with MMEngine's ``optim_wrapper`` and ``param_scheduler``.
        epoch_length: the number of iterations of an epoch.
        epochs: the number of epochs of the stage.

    Raises:
        ConfigError: the optimizer or a scheduler is not known.
    """
    wrapper_config = copy.deepcopy(dict(config['optim_wrapper']))
    accumulation = int(wrapper_config.get('accumulative_counts', 1))
    _check_known(OPTIMIZERS, 'optimizer', wrapper_config.get('optimizer', {}))
    for key in _OF_PARAMETERS:
        wrapper_config.pop(key, None)
    wrapper = build_optim_wrapper(nn.Linear(1, 1), wrapper_config)
    schedulers = _build(config.get('param_scheduler'), wrapper, epoch_length, epochs)
    by_iteration = [scheduler for scheduler in schedulers if not scheduler.by_epoch]
    by_epoch = [scheduler for scheduler in schedulers if scheduler.by_epoch]
    group = wrapper.param_groups[0]
    rates: list[npt.NDArray[np.float64]] = []
    iteration, last = 0, epoch_length * epochs
    for _ in range(epochs):
        if not by_iteration and accumulation == 1:
            rates.append(np.full(epoch_length, float(group['lr'])))
        else:
            for _ in range(epoch_length):
                iteration += 1
                if iteration % accumulation == 0 or iteration == last:
                    rates.append(np.array([float(group['lr'])]))
                for scheduler in by_iteration:
                    scheduler.step()
        for scheduler in by_epoch:
            scheduler.step()
    row = np.concatenate(rates) if rates else np.empty(0)
    # The first beta of Adam does not count: Adam divides by a running magnitude, so its steps do
    # not sum to lr / (1 - beta).
    momentum = float(group.get('momentum', 0.0))
    return Schedule(lr_sum=math.fsum(row), momentum=momentum, updates=row.size, rates=row)


def _check_known(registry: Registry, kind: str, config: Mapping[str, Any]) -> None:
    """Raise ConfigError for an unknown name. MMEngine's own error does not state the name."""
    name = config.get('type')
    if isinstance(name, str) and registry.get(name) is None:
        raise ConfigError(f'unknown {kind} {name!r}; {nearest(name, registry.module_dict)}')


def _build(config: Any, wrapper: Any, epoch_length: int, epochs: int) -> list[Any]:
    entries = config if isinstance(config, list | tuple) else [config] if config else []
    schedulers = []
    for entry in entries:
        _check_known(PARAM_SCHEDULERS, 'scheduler', entry)
        by_epoch = entry.get('by_epoch', True)
        end = epochs if by_epoch else epochs * epoch_length
        arguments = {'end': end, **copy.deepcopy(dict(entry))}
        defaults = dict(optimizer=wrapper, epoch_length=epoch_length)
        schedulers.append(PARAM_SCHEDULERS.build(arguments, default_args=defaults))
    return schedulers
