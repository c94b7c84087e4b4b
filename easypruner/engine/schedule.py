"""The learning rates of a training stage, summed exactly and without data."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from mmengine.config import Config
from torch import nn

from easypruner.errors import ConfigError, nearest
from easypruner.strategies import Schedule

if TYPE_CHECKING:
    from mmengine.registry import Registry

_OF_PARAMETERS = ('constructor', 'paramwise_cfg')


def overridden(config: Config, changes: Mapping[str, Any]) -> Config:
    """Return a config with a stage's own settings merged over it.

    Schedulers are replaced: what one takes another may not know, or know as something else.
    """
    result: Config = copy.deepcopy(config)
    if changes.get('param_scheduler') is not None:
        result.pop('param_scheduler', None)
    result.merge_from_dict(dict(changes))
    return result


def measure_schedule(config: Mapping[str, Any], epoch_length: int, epochs: int) -> Schedule:
    """Step a stage's schedulers on a dummy optimizer.

    Args:
        config: with ``optim_wrapper`` and ``param_scheduler`` as an MMEngine Runner takes them.
        epoch_length: iterations of one epoch.
        epochs: of the stage.

    Raises:
        ConfigError: an optimizer that is not known.
    """
    from mmengine.optim import build_optim_wrapper
    from mmengine.registry import OPTIMIZERS

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
    return Schedule(lr_sum=math.fsum(row), momentum=_momentum(group), updates=row.size, rates=row)


def _check_known(registry: Registry, kind: str, config: Mapping[str, Any]) -> None:
    """Raise for an unknown name, over which MMEngine stumbles without saying it."""
    name = config.get('type')
    if isinstance(name, str) and registry.get(name) is None:
        raise ConfigError(f'unknown {kind} {name!r}; {nearest(name, registry.module_dict)}')


def _momentum(group: Mapping[str, Any]) -> float:
    # Adam divides by a running magnitude: what its first beta smooths is no momentum of this kind.
    return float(group.get('momentum', 0.0))


def _build(config: Any, wrapper: Any, epoch_length: int, epochs: int) -> list[Any]:
    from mmengine.registry import PARAM_SCHEDULERS

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
