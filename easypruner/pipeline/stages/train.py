"""The stage Train: one MMEngine Runner, with or without a regularizer."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook

from easypruner.base.checks import check_count, check_number, check_text, is_number, refuse
from easypruner.base.distributed import is_main
from easypruner.engine.accumulation import AccumulationHook
from easypruner.engine.averaging import AveragingHook
from easypruner.engine.checkpoint import PlainCheckpointHook
from easypruner.engine.config import building
from easypruner.engine.hooks import BufferHook, EpochSeedHook, ProgressHook
from easypruner.engine.progress import StageProgress
from easypruner.engine.pruning_hook import PruningHook, weak_reach
from easypruner.engine.runner import StageRunner
from easypruner.engine.schedule import measure_schedule, overridden
from easypruner.errors import ConfigError
from easypruner.pipeline.stages.common import stage_runner, with_row, with_weights
from easypruner.report.text import plural
from easypruner.strategies import Regularizer, Schedule, Stage
from easypruner.strategies.stages.forecast import (
    Forecast,
    Push,
    Step,
    pushes_last,
    removing_everything,
)
from easypruner.strategies.stages.state import PruningState

_DEFAULT_HOOKS = dict(
    # Two are kept, so that there is a whole one while the other is being written.
    checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=2, save_last=True),
)

_LITTLE = 0.01
"""A share of what was in an average that does not matter any more."""


class Train(Stage):
    """Trains the network where it stands, pushed by a regularizer if there is one.

    The optimizer starts anew: no momentum of an earlier stage acts on.

    Args:
        name: of the stage.
        epochs: to train for; by default the config's ``train_cfg.max_epochs``.
        regularizer: pushes channels to zero.
        row: name of the row that the result gets in the final table; None for no row.
        optim_wrapper: merged over the config's.
        param_scheduler: instead of the config's. A scheduler without ``end`` ends with the stage.
        ema: what the stage leaves behind is an exponential moving average of the weights, in which
            the weights of each optimizer update have this share, e.g. 0.0002; None for the last
            weights.
        regularize_every: optimizer updates from one push of the regularizer to the next, each as
            strong as so many (lazy regularization; Karras et al., 2020, arXiv 1912.04958, section
            3.1): what it adds to the time of a step becomes as much less. The reach stays what it
            is. Only for regularizers that are penalties.
    """

    def __init__(
        self,
        name: str = 'train',
        epochs: int | None = None,
        regularizer: Regularizer | None = None,
        row: str | None = None,
        optim_wrapper: Mapping[str, Any] | None = None,
        param_scheduler: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        ema: float | None = None,
        regularize_every: int = 1,
    ) -> None:
        super().__init__(name)
        owner = type(self).__name__
        if epochs is not None:
            check_count(epochs, 'epochs', owner)
        if ema is not None:
            _check_ema(ema, owner)
        check_count(regularize_every, 'regularize_every', owner)
        if regularize_every > 1:
            _check_lazy(regularizer, owner)
        self.epochs = epochs
        self.regularizer = regularizer
        self.row = check_text(row, 'row', owner)
        self.optim_wrapper = optim_wrapper
        self.param_scheduler = param_scheduler
        self.ema = ema
        self.regularize_every = regularize_every

    def length(self, config: Mapping[str, Any]) -> int:
        """Return the number of epochs under a run's config."""
        if self.epochs is not None:
            return self.epochs
        epochs = (config.get('train_cfg') or {}).get('max_epochs')
        if epochs is None:
            raise ConfigError(
                f'stage {self.name!r} does not know how long to train; '
                'give it epochs, or the config train_cfg=dict(max_epochs=...)'
            )
        return int(epochs)

    def schedule(self, config: Any, epoch_length: int) -> Schedule:
        """Return the stage's learning rates, summed, under a run's config."""
        given = ('optim_wrapper', 'param_scheduler')
        own = Config({key: config[key] for key in given if config.get(key) is not None})
        merged = overridden(own, self._overrides())
        if merged.get('optim_wrapper') is None:
            raise ConfigError(
                f'stage {self.name!r} has no optimizer; give it, or the config, '
                "optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1))"
            )
        return measure_schedule(merged, epoch_length, self.length(config))

    def forecast(self, before: Forecast) -> Forecast:
        before.check_not_fixed()
        with building('its optimizer or scheduler'):
            schedule = self.schedule(before.config, before.epoch_length)
        push = None if self.regularizer is None else self._forecast_push(before, schedule)
        return replace(before, step=Step(epochs=self.length(before.config), push=push))

    def _forecast_push(self, before: Forecast, schedule: Schedule) -> Push:
        regularizer = self.regularizer
        assert regularizer is not None
        regularizer.schedule(schedule)
        regularizer.largest(before.graph, before.worst_masks)
        weak = weak_reach(regularizer, schedule, before.graph, removing_everything(before.graph))
        reach = f'strength {regularizer.strength:.2g}'
        if regularizer.pushes_parameters:
            reach = f'{regularizer.reach(schedule):.2g} ({reach})'
        return Push(reach, weak, (self.lag(schedule),))

    def run(self, state: PruningState) -> PruningState:
        """Train, save the weights, evaluate."""
        progress = StageProgress(self.name, state.run.console, shown=is_main())
        warnings: list[str] = []
        epochs = self.length(state.config)
        runner = stage_runner(
            state,
            epochs,
            self._overrides() | {'default_hooks': _DEFAULT_HOOKS | _given_hooks(state)},
            [
                EpochSeedHook(state.run.seed, state.index),
                BufferHook(),
                AccumulationHook(),
                PlainCheckpointHook(),
                ProgressHook(progress),
                *self.hooks(state),
            ],
        )
        with contextlib.ExitStack() as ends:
            ends.callback(progress.stop)
            if self.regularizer is not None:
                push = self._push(self.regularizer, state, runner, warnings)
                ends.callback(push.close)
                runner.register_hook(push)
            runner.train()
        for warning in warnings:
            state = state.warned(f'{self.name}: {warning}')
        state = with_weights(state, runner.plain_model)
        return with_row(state, self.row, runner, state.run.trace(runner.plain_model))

    def _push(
        self,
        regularizer: Regularizer,
        state: PruningState,
        runner: StageRunner,
        warnings: list[str],
    ) -> PruningHook:
        """Return the hook that pushes; what is to be warned of is appended to ``warnings``."""
        schedule = self.schedule(state.config, len(runner.train_dataloader))
        if lag := self.lag(schedule):
            warnings.append(lag)
        return PruningHook(
            regularizer,
            state.load_masks(),
            schedule,
            state.run.trace,
            warnings.append if pushes_last(state.run.steps, state.index) else None,
            self.regularize_every,
        )

    def lag(self, schedule: Schedule) -> str:
        """Return a warning if the average still holds what the regularizer pushes away, or ''."""
        if self.ema is None or self.regularizer is None:
            return ''
        held = (1 - self.ema) ** (schedule.updates / 2)
        if held <= _LITTLE:
            return ''
        return (
            f'the average of weights (ema={self.ema:g}) is to {held:.0%} still that of the first '
            f'half of the stage, before {type(self.regularizer).__name__} had its way: what is '
            'zero at the end is not in the average; leave ema to a stage without a regularizer, '
            'or raise it'
        )

    def hooks(self, state: PruningState) -> list[Hook]:
        """Return what this kind of training registers with its runner besides."""
        return [] if self.ema is None else [AveragingHook(self.ema)]

    def plan(self, state: PruningState) -> str:
        text = f'train {plural(self.length(state.config), "epoch")}'
        if self.regularizer is not None:
            text += f' with {type(self.regularizer).__name__}'
            if self.regularize_every > 1:
                text += f' every {self.regularize_every} updates'
        if self.ema is not None:
            text += f', weights averaged ({self.ema:g})'
        return text

    def _overrides(self) -> dict[str, Any]:
        overrides: dict[str, Any] = {}
        if self.optim_wrapper is not None:
            overrides['optim_wrapper'] = dict(self.optim_wrapper)
        if self.param_scheduler is not None:
            overrides['param_scheduler'] = self.param_scheduler
        return overrides


def _check_ema(ema: Any, owner: str) -> None:
    if is_number(ema) and 0.5 < ema < 1:
        what = f'the share of the new weights; {ema!r} of the average itself is ema={1 - ema:g}'
        refuse(ema, 'ema', owner, what)
    check_number(ema, 'ema', owner, above=0, most=0.5)


def _check_lazy(regularizer: Regularizer | None, owner: str) -> None:
    if regularizer is None:
        raise ConfigError(
            f'regularize_every of {owner} says how often a regularizer pushes, but there is none; '
            'add regularizer=dict(type=...), or leave it out'
        )
    if type(regularizer).penalty is Regularizer.penalty and not regularizer.watches:
        name = type(regularizer).__name__
        raise ConfigError(
            f'{name} has no penalty(): it need not be one whose gradient, as many times as large, '
            f'can stand for several updates; leave out regularize_every of {owner}, or use another '
            'regularizer'
        )


def _given_hooks(state: PruningState) -> dict[str, Any]:
    hooks = state.config.get('default_hooks') or {}
    return {name: hook for name, hook in hooks.items() if name != 'checkpoint'}
