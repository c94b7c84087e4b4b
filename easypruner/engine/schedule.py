"""The learning rates of a training stage, computed from its config without any data."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.optim import OptimWrapperDict, build_optim_wrapper
from mmengine.registry import OPTIMIZERS, PARAM_SCHEDULERS
from torch import nn

from easypruner.base.checks import check_count
from easypruner.base.distributed import world_size
from easypruner.engine.amp import on_this_device
from easypruner.engine.unknown_names import check_known
from easypruner.errors import ConfigError
from easypruner.strategies import Schedule
from easypruner.strategies.regularizers.rates import schedule_of
from easypruner.strategies.regularizers.schedule import Row

_MOST_EPOCHS = 100_000
_MOST_ITERATIONS = 20_000_000
_SAMPLED = 500_000
"""The iterations that are stepped for a longer stage."""
_OF_PARAMETERS = ('constructor', 'paramwise_cfg')


def overridden(config: Config, changes: Mapping[str, Any]) -> Config:
    """Return a copy of a config in which a stage's own settings replace those of the config.

    Dicts are merged, but schedulers are replaced as a whole, because each type of scheduler has
    its own arguments.
    """
    result: Config = copy.deepcopy(config)
    if changes.get('param_scheduler') is not None:
        result.pop('param_scheduler', None)
    # A copy, because MMEngine removes each _delete_ from what it merges.
    result.merge_from_dict(copy.deepcopy(dict(changes)))
    return result


def measure_schedule(
    config: Mapping[str, Any], epoch_length: int, epochs: int, model: nn.Module | None = None
) -> Schedule:
    """Return the learning rates of a stage, by stepping its schedulers without training.

    Args:
        config: a config with MMEngine's ``optim_wrapper`` and ``param_scheduler``; if it has
            ``auto_scale_lr``, also with ``train_dataloader``.
        epoch_length: the number of iterations of an epoch.
        epochs: the number of epochs of the stage.
        model: the network, whose parameters may have learning rates of their own
            (``paramwise_cfg``, ``constructor``). None ignores these settings.

    Raises:
        ConfigError: the optimizer or a scheduler is not known.
    """
    _check_length(epoch_length, epochs)
    wrapper_config = copy.deepcopy(on_this_device(config['optim_wrapper']))
    accumulation = int(wrapper_config.get('accumulative_counts', 1))
    check_known(OPTIMIZERS, 'optimizer', wrapper_config.get('optimizer', {}).get('type'))
    if model is None:
        for key in _OF_PARAMETERS:
            wrapper_config.pop(key, None)
    wrapper = build_optim_wrapper(nn.Linear(1, 1) if model is None else model, wrapper_config)
    if isinstance(wrapper, OptimWrapperDict):
        raise ConfigError(
            f'the constructor of optim_wrapper makes {len(wrapper)} optimizers, but a stage trains '
            'with one; let it return an OptimWrapper of one optimizer, which may have several '
            'groups of parameters'
        )
    for group in wrapper.param_groups:
        group['lr'] *= lr_factor(config)
    scheduler_config = config.get('param_scheduler')
    updates = -(-epoch_length * epochs // accumulation)
    if _can_sample(scheduler_config, epoch_length * epochs):
        epoch_length, accumulation = -(-_SAMPLED // epochs), 1
    schedulers = _build(scheduler_config, wrapper, epoch_length, epochs)
    groups = _distinct(wrapper.param_groups)
    rows = _stepped(schedulers, list(groups.values()), epoch_length, epochs, accumulation)
    if 0 < rows.shape[1] < updates:
        rows = rows[:, np.arange(updates) * rows.shape[1] // updates]
    by_rate = dict(zip(groups, rows, strict=True))
    rates = [by_rate[_initial_rate(group)] for group in wrapper.optimizer.param_groups]
    return schedule_of(wrapper.optimizer, rates, model)


def lr_factor(config: Mapping[str, Any]) -> float:
    """Return the factor that ``auto_scale_lr`` of a config applies to learning rates.

    Raises:
        ConfigError: the batch size that the learning rates are meant for is missing.
    """
    scaling = config.get('auto_scale_lr') or {}
    if not scaling.get('enable', False):
        return 1.0
    base = scaling.get('base_batch_size')
    if base is None:
        raise ConfigError(
            'auto_scale_lr does not have the batch size that the learning rate is meant for; add '
            'auto_scale_lr=dict(base_batch_size=256), or leave --auto-scale-lr out'
        )
    check_count(base, 'base_batch_size', 'auto_scale_lr')
    batch = (config.get('train_dataloader') or {}).get('batch_size')
    if batch is None:
        raise ConfigError(
            'auto_scale_lr needs train_dataloader=dict(batch_size=...), but there is no batch_size'
        )
    return float(world_size() * batch / base)


def _stepped(
    schedulers: Sequence[Any],
    groups: Sequence[dict[str, Any]],
    epoch_length: int,
    epochs: int,
    accumulation: int,
) -> Row:
    """Step schedulers as the training will; return the learning rates of groups at each update."""
    by_iteration = [scheduler for scheduler in schedulers if not scheduler.by_epoch]
    by_epoch = [scheduler for scheduler in schedulers if scheduler.by_epoch]
    pieces: list[Row] = []
    iteration, last = 0, epoch_length * epochs
    for _ in range(epochs):
        if not by_iteration and accumulation == 1:
            pieces.append(np.repeat(_rates(groups), epoch_length, axis=1))
        else:
            for _ in range(epoch_length):
                iteration += 1
                if iteration % accumulation == 0 or iteration == last:
                    pieces.append(_rates(groups))
                for scheduler in by_iteration:
                    scheduler.step()
        for scheduler in by_epoch:
            scheduler.step()
    return np.concatenate(pieces, axis=1) if pieces else np.empty((len(groups), 0))


def _check_length(epoch_length: int, epochs: int) -> None:
    """Raise ConfigError for a stage that would never end, and whose schedule fills the memory."""
    if epochs > _MOST_EPOCHS or epoch_length * epochs > _MOST_ITERATIONS:
        raise ConfigError(
            f'{epochs} epochs of {epoch_length} iterations; expected at most {_MOST_EPOCHS} epochs '
            f'and {_MOST_ITERATIONS} iterations in a stage'
        )


def _can_sample(config: Any, iterations: int) -> bool:
    """Return whether fewer iterations show the rates of a long stage.

    Schedulers that count epochs have the same form then, those that count iterations do not.
    """
    by_epoch = all(entry.get('by_epoch', True) for entry in _entries(config))
    return by_epoch and iterations > 2 * _SAMPLED


def _distinct(groups: Sequence[dict[str, Any]]) -> dict[float, dict[str, Any]]:
    """Return a parameter group for each initial learning rate, as schedulers treat others alike."""
    return {_initial_rate(group): group for group in groups}


def _initial_rate(group: Mapping[str, Any]) -> float:
    return float(group.get('initial_lr', group['lr']))


def _rates(groups: Iterable[Mapping[str, Any]]) -> Row:
    return np.array([[float(group['lr'])] for group in groups])


def _entries(config: Any) -> Sequence[Mapping[str, Any]]:
    return config if isinstance(config, list | tuple) else [config] if config else []


def acting(schedulers: Any, epochs: int, iterations: int) -> Any:
    """Return the schedulers that begin before a training of this length ends.

    In a short stage, the schedule after a warm-up may never begin. MMEngine does not build it then,
    because it would end with the stage, and thus before its begin.
    """
    if not isinstance(schedulers, list | tuple):
        return schedulers
    return [
        entry
        for entry in schedulers
        if not isinstance(entry, Mapping)
        or 'end' in entry
        or entry.get('begin', 0) < (epochs if entry.get('by_epoch', True) else iterations)
    ]


def _build(config: Any, wrapper: Any, epoch_length: int, epochs: int) -> list[Any]:
    schedulers = []
    for entry in acting(_entries(config), epochs, epochs * epoch_length):
        check_known(PARAM_SCHEDULERS, 'scheduler', entry.get('type'))
        by_epoch = entry.get('by_epoch', True)
        end = epochs if by_epoch else epochs * epoch_length
        arguments = {'end': end, **copy.deepcopy(dict(entry))}
        defaults = dict(optimizer=wrapper, epoch_length=epoch_length)
        schedulers.append(PARAM_SCHEDULERS.build(arguments, default_args=defaults))
    return schedulers
