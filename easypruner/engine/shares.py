"""Shares of a config's schedule: with epochs='50%', a stage has all of it in half of the time."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config

from easypruner.base.checks import refuse
from easypruner.errors import ConfigError

_SCHEDULED = '_scheduled_epochs'
_PERCENT = re.compile(r'\s*(\d+(?:\.\d+)?)\s*%\s*')
_MOST = 100.0
_TIMES = ('begin', 'end', 'T_max', 'step_size', 'total_steps')
_LISTS = ('milestones', 'periods')


def read_share(value: Any, argument: str, owner: str) -> float:
    """Return a share that is given in percent, such as ``'50%'``.

    Raises:
        ConfigError: the value is not a percentage above 0 %.
    """
    match = _PERCENT.fullmatch(value) if isinstance(value, str) else None
    share = float(match[1]) / 100 if match else 0.0
    if not 0 < share <= _MOST:
        refuse(value, argument, owner, "a number, or a share of the config's own, such as '50%'")
    return share


@dataclass(frozen=True)
class Shares:
    """What a stage takes from the schedule of the config.

    Attributes:
        epochs: the share of the config's epochs; None if the stage has its own number.
        lr: the share of the config's learning rate.
    """

    epochs: float | None = None
    lr: float = 1.0

    def length(self, config: Mapping[str, Any], stage: str) -> int:
        """Return the number of epochs of a stage, at least 1.

        Args:
            config: the config of the run.
            stage: the name of the stage, for messages.
        """
        epochs = config_epochs(config, stage)
        return epochs if self.epochs is None else max(1, round(self.epochs * epochs))

    def applied(
        self, overrides: Mapping[str, Any], config: Mapping[str, Any], stage: str
    ) -> dict[str, Any]:
        """Return a stage's overrides with the learning rate and the schedulers of its share.

        Args:
            overrides: what the stage itself replaces in the config. Its own schedulers stay as they
                are.
            config: the config of the run.
            stage: the name of the stage, for messages.
        """
        result = dict(overrides)
        schedulers = config.get('param_scheduler')
        if 'param_scheduler' not in result and schedulers is not None and self != Shares():
            result['param_scheduler'] = self._schedulers(schedulers, config, stage)
        if self.lr != 1:
            result['optim_wrapper'] = self._slower(result.get('optim_wrapper'), config, stage)
        return result

    def _schedulers(self, given: Any, config: Mapping[str, Any], stage: str) -> list[Any]:
        entries = given if isinstance(given, list | tuple) else [given]
        scaled = [copy.deepcopy(dict(entry)) for entry in entries]
        if self.lr != 1:
            for entry in scaled:
                if 'eta_min' in entry and str(entry.get('type')).endswith('LR'):
                    entry['eta_min'] *= self.lr
        if self.epochs is None:
            return scaled
        factor = self.length(config, stage) / scheduled_epochs(config, stage)
        if factor == 1:
            return scaled
        compressed = [compress(entry, factor) for entry in scaled]
        return [entry for entry in compressed if entry is not None]

    def _slower(self, own: Any, config: Mapping[str, Any], stage: str) -> dict[str, Any]:
        own = dict(own or {})
        wrapper = config.get('optim_wrapper') or {}
        optimizer = {**(wrapper.get('optimizer') or {}), **(own.get('optimizer') or {})}
        if not isinstance(optimizer.get('lr'), int | float):
            raise ConfigError(
                f'lr of stage {stage!r} is a share, but the optimizer of the config has no lr; '
                'give optim_wrapper=dict(optimizer=dict(lr=...))'
            )
        rate = {'lr': optimizer['lr'] * self.lr}
        return {**own, 'optimizer': {**(own.get('optimizer') or {}), **rate}}


def mark_schedule(config: Config, epochs: Any) -> None:
    """Note on a config for how many epochs its schedulers were written.

    Args:
        config: the config, whose ``train_cfg.max_epochs`` was changed since.
        epochs: the number of epochs before; None if it is unknown or does not matter.
    """
    # An attribute of a Config would be a key of it.
    object.__setattr__(config, _SCHEDULED, epochs)


def scheduled_epochs(config: Mapping[str, Any], stage: str) -> int:
    """Return the number of epochs for which the schedulers of a config were written."""
    return int(getattr(config, '__dict__', {}).get(_SCHEDULED) or config_epochs(config, stage))


def config_epochs(config: Mapping[str, Any], stage: str) -> int:
    """Return the number of epochs of a config's schedule.

    Raises:
        ConfigError: it has none, or it counts iterations.
    """
    settings = config.get('train_cfg') or {}
    epochs = settings.get('max_epochs')
    if epochs is not None:
        return int(epochs)
    if settings.get('max_iters') is not None:
        raise ConfigError(
            f'stage {stage!r} counts epochs, but the config counts iterations: '
            f'train_cfg.max_iters={settings["max_iters"]}; give the stage epochs=..., and the '
            'config train_cfg=dict(_delete_=True, by_epoch=True, max_epochs=...)'
        )
    raise ConfigError(
        f'stage {stage!r} does not have a number of epochs; give it epochs=..., or the '
        'config train_cfg=dict(max_epochs=...)'
    )


def compress(scheduler: Mapping[str, Any], factor: float) -> dict[str, Any] | None:
    """Return a scheduler whose epochs or iterations are multiplied by a factor.

    Times are rounded to whole epochs or iterations. The decay over the whole training stays the
    same.

    Returns:
        the scheduler; None if it would be shorter than half an epoch, such as a warm-up.
    """
    result = dict(scheduler)
    for key in _TIMES:
        if _is_finite(result.get(key)):
            result[key] = round(result[key] * factor)
    for key in _LISTS:
        if isinstance(result.get(key), Sequence):
            result[key] = [max(1, round(time * factor)) for time in result[key]]
    begin, end = result.get('begin', 0), result.get('end')
    if _is_finite(end) and end <= begin:
        return None
    _keep_period(scheduler, result)
    _keep_decay(scheduler, result, factor)
    return result


def _keep_period(old: Mapping[str, Any], new: dict[str, Any]) -> None:
    """Let a cosine end with its scheduler, if it did so before."""
    if new.get('T_max') is None:
        return
    ended = old.get('end') is not None and old['T_max'] == old['end'] - old.get('begin', 0)
    new['T_max'] = new['end'] - new.get('begin', 0) if ended else max(1, new['T_max'])


def _keep_decay(old: Mapping[str, Any], new: dict[str, Any], factor: float) -> None:
    """Let a decay after each step, or each ``step_size``, add up to what it was."""
    gamma, kind = old.get('gamma'), str(old.get('type'))
    if 'step_size' in old:
        new['step_size'] = max(1, new['step_size'])
        new['gamma'] = (0.1 if gamma is None else gamma) ** (
            new['step_size'] / (old['step_size'] * factor)
        )
    elif gamma is not None and kind.startswith('Exponential'):
        new['gamma'] = gamma ** (1 / factor)


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
