"""The stage Train: trains with an MMEngine Runner, with or without a regularizer."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook
from torch import nn

from easypruner.base.checks import check_count, check_number, is_number, refuse
from easypruner.base.describe import shown
from easypruner.base.distributed import is_main
from easypruner.base.files import write_json
from easypruner.engine import hooks
from easypruner.engine.averaging import AveragingHook
from easypruner.engine.config import building
from easypruner.engine.failures import explained
from easypruner.engine.health import Health
from easypruner.engine.health_hook import HealthHook, position
from easypruner.engine.progress import StageProgress
from easypruner.engine.pruning_hook import PruningHook
from easypruner.engine.regularizer_trial import try_regularizer
from easypruner.engine.runner import StageRunner
from easypruner.engine.schedule import measure_schedule, overridden
from easypruner.engine.shares import Shares, read_share
from easypruner.engine.trend_hook import TrendHook
from easypruner.errors import ConfigError
from easypruner.pipeline.stages.common import stage_runner, with_row, with_weights
from easypruner.pipeline.stages.expected_cut import cut_warning
from easypruner.report.text import plural
from easypruner.strategies import Regularizer, Schedule
from easypruner.strategies.regularizers.reach import check_lazy, weak_reach
from easypruner.strategies.stages.forecast import (
    Forecast,
    Push,
    Step,
    margin_after,
    pushes_last,
)
from easypruner.strategies.stages.stage import RowStage
from easypruner.strategies.stages.state import PruningState

_DEFAULT_HOOKS = dict(
    # With two checkpoints, one is complete while the other is being written.
    checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=2, save_last=True)
)

PUSH = 'push.json'
"""The file of what was measured about the push."""
_NEGLIGIBLE = 0.01
"""The share of old weights in an average below which they do not matter."""


class Train(RowStage):
    """Trains the current network, with a regularizer if one is given.

    The optimizer starts anew, without the momentum of earlier stages.

    Use when:
        The network has to be trained: before a selection, with a regularizer between selection and
        cut, and after the cut to recover accuracy (fine-tuning).

    Fails when:
        A regularizer with a small reach is given a short stage; the plan warns. ``ema`` averages
        weights from before the regularizer had an effect; the plan warns as well.

    Values:
        For fine-tuning, about a tenth of the first learning rate of the original training:
        ``optim_wrapper=dict(optimizer=dict(lr=0.01))``. ``regularize_every=16`` for regularizers
        that read all weights.

    Args:
        name: the name of the stage.
        epochs: the number of epochs, or a share of the config's ``train_cfg.max_epochs``, such as
            ``'50%'``, which also compresses the config's ``param_scheduler``; by default all.
        regularizer: the regularizer that pushes channels to zero.
        row: the name of the result's row in the final table; None for no row.
        optim_wrapper: settings that are merged into the config's ``optim_wrapper``.
        param_scheduler: replaces the config's ``param_scheduler``. A scheduler without ``end`` ends
            with the stage.
        ema: the share of the new weights, such as 0.0002, in an exponential moving average that is
            updated after each optimizer update. The stage then ends with the averaged weights. None
            ends with the last weights.
        regularize_every: the number of optimizer updates between two pushes of the regularizer,
            each of which is stronger by this number (lazy regularization; Karras et al., 2020,
            arXiv 1912.04958, section 3.1). The regularizer takes less time accordingly, and the
            reach stays the same. Only penalties allow it.
        lr: a share of the learning rate, such as ``'10%'``; None for the whole.
    """

    def __init__(
        self,
        name: str = 'train',
        epochs: int | str | None = None,
        regularizer: Regularizer | None = None,
        row: str | None = None,
        optim_wrapper: Mapping[str, Any] | None = None,
        param_scheduler: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        ema: float | None = None,
        regularize_every: int = 1,
        lr: str | None = None,
    ) -> None:
        super().__init__(row, name)
        owner = type(self).__name__
        if epochs is not None and not isinstance(epochs, str):
            check_count(epochs, 'epochs', owner)
        if ema is not None:
            _check_ema(ema, owner)
        check_count(regularize_every, 'regularize_every', owner)
        if regularize_every > 1:
            _check_lazy(regularizer, owner)
        self.epochs = epochs
        self.shares = Shares(
            read_share(epochs, 'epochs', owner) if isinstance(epochs, str) else None,
            1.0 if lr is None else read_share(lr, 'lr', owner),
        )
        self.regularizer = regularizer
        self.optim_wrapper = optim_wrapper
        self.param_scheduler = param_scheduler
        self.ema = ema
        self.regularize_every = regularize_every

    def length(self, config: Mapping[str, Any]) -> int:
        """Return the number of epochs, given the config of a run."""
        if isinstance(self.epochs, int):
            return self.epochs
        return self.shares.length(config, self.name)

    def schedule(self, config: Any, epoch_length: int, model: nn.Module | None = None) -> Schedule:
        """Return the schedule of the stage's learning rates.

        Args:
            config: the config of a run.
            epoch_length: the number of iterations of an epoch.
            model: the network, for learning rates of single parameters.
        """
        keys = ('optim_wrapper', 'param_scheduler', 'auto_scale_lr', 'train_dataloader')
        settings = Config({key: config[key] for key in keys if config.get(key) is not None})
        merged = overridden(settings, self.overrides(config))
        if merged.get('optim_wrapper') is None:
            raise ConfigError(
                f'stage {self.name!r} does not have an optimizer; give the stage or the config '
                "optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1))"
            )
        optimizer = merged.optim_wrapper.get('optimizer')
        with building(f'its optimizer {shown(optimizer)} or a scheduler'):
            return measure_schedule(merged, epoch_length, self.length(config), model)

    def forecast(self, before: Forecast) -> Forecast:
        before.check_not_fixed()
        schedule = self.schedule(before.config, before.epoch_length, before.graph.model)
        push = None if self.regularizer is None else self._forecast_push(before, schedule)
        return replace(before, step=Step(epochs=self.length(before.config), push=push))

    def _forecast_push(self, before: Forecast, schedule: Schedule) -> Push:
        regularizer = self.regularizer
        assert regularizer is not None
        try_regularizer(regularizer, before.graph, schedule, before.masks)
        slowest = schedule.slowest(regularizer.pushed_names(before.graph, before.worst_masks))
        regularizer.schedule(slowest)
        regularizer.largest(before.graph, before.worst_masks)
        weak = weak_reach(regularizer, slowest, before.graph, before.nothing_kept)
        reach = f'strength {regularizer.strength:.2g}'
        if regularizer.pushes_parameters:
            form = 'proximal' if regularizer.is_proximal else 'gradient'
            reach = f'{regularizer.reach(slowest):.2g} ({reach}, {form})'
        return Push(reach, weak, (self._average_warning(schedule),))

    def run(self, state: PruningState) -> PruningState:
        """Train, save the weights, evaluate."""
        progress = StageProgress(self.name, state.run.console, shown=is_main())
        warnings: list[str] = []
        default_hooks = _DEFAULT_HOOKS | _other_default_hooks(state)
        health = Health()
        runner = stage_runner(
            state,
            self.length(state.config),
            self.overrides(state.config) | {'default_hooks': default_hooks},
            [
                hooks.EpochSeedHook(state.run.seed, state.index),
                HealthHook(health, self.name, self.regularizer),
                *hooks.training_hooks(),
                hooks.ProgressHook(progress),
                *self.hooks(state),
            ],
        )
        push = self._push(state, runner, warnings, progress, health)
        with contextlib.ExitStack() as ends:
            ends.callback(progress.stop)
            if push is not None:
                ends.callback(push.close)
                runner.register_hook(push)
                self._watch_trend(state, runner, warnings, progress)
            ends.enter_context(explained(partial(position, self.name, runner)))
            runner.train()
            if push is not None and push.meter.found:
                state.write(PUSH, partial(write_json, value=push.measured))
        warnings.append(health.warning)
        state = with_weights(state, runner.plain_model)
        if self.row is not None:
            state = with_row(state, self.row, runner, state.run.trace(runner.plain_model))
        if push is not None:
            warnings.append(_cut_warning(state, runner, push))
        for warning in filter(None, warnings):
            state = state.warned(f'{self.name}: {warning}')
        return state

    def _push(
        self,
        state: PruningState,
        runner: StageRunner,
        warnings: list[str],
        progress: StageProgress,
        health: Health,
    ) -> PruningHook | None:
        """Return the hook that pushes. Warnings are appended to ``warnings``."""
        if self.regularizer is None:
            return None
        schedule = self.schedule(state.config, len(runner.train_dataloader))
        if warning := self._average_warning(schedule):
            warnings.append(warning)
        return PruningHook(
            self.regularizer,
            state.load_masks(),
            schedule,
            state.run.trace,
            warnings.append if pushes_last(state.run.steps, state.index) else None,
            self.regularize_every,
            progress.note,
            health,
        )

    def _watch_trend(
        self,
        state: PruningState,
        runner: StageRunner,
        warnings: list[str],
        progress: StageProgress,
    ) -> None:
        """Let the runner warn if the next selection will remove nothing."""
        margin = margin_after(state.run.steps, state.index)
        if margin is None:
            return

        def warn(text: str) -> None:
            progress.note(text)
            warnings.append(text)

        runner.register_hook(TrendHook(margin, state.run.trace, warn))

    def _average_warning(self, schedule: Schedule) -> str:
        """Return a warning if the average contains weights from before the push, or ''."""
        if self.ema is None or self.regularizer is None:
            return ''
        old = (1 - self.ema) ** (schedule.updates / 2)
        if old <= _NEGLIGIBLE:
            return ''
        return (
            f'{old:.0%} of the averaged weights (ema={self.ema:g}) are from the first half of the '
            f'stage, before {type(self.regularizer).__name__} has brought channels to zero, so '
            'they are not zero in the average; use ema in a stage without a regularizer, or a '
            'larger ema'
        )

    def hooks(self, state: PruningState) -> list[Hook]:
        """Return additional hooks for the runner."""
        return [] if self.ema is None else [AveragingHook(self.ema)]

    def plan(self, state: PruningState) -> str:
        text = f'train {plural(self.length(state.config), "epoch")}'
        if self.regularizer is not None:
            text += f' with {type(self.regularizer).__name__}'
            if self.regularize_every > 1:
                text += f' every {self.regularize_every} updates'
        if self.shares.lr != 1:
            text += f', at {self.shares.lr:.3g} of the learning rate'
        if self.ema is not None:
            text += f', weights averaged ({self.ema:g})'
        return text

    def overrides(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings of the stage that replace those of the config of a run."""
        overrides: dict[str, Any] = {}
        if self.optim_wrapper is not None:
            overrides['optim_wrapper'] = dict(self.optim_wrapper)
        if self.param_scheduler is not None:
            overrides['param_scheduler'] = self.param_scheduler
        return self.shares.applied(overrides, config, self.name)


def _cut_warning(state: PruningState, runner: StageRunner, push: PruningHook) -> str:
    """Return a warning if the next cut will not be free, with the strength that would help."""
    masks = state.load_masks()
    if masks is None or not pushes_last(state.run.steps, state.index):
        return ''
    text = cut_warning(state, masks, runner, push.regularizer)
    return '; '.join(filter(None, [text, push.advice])) if text else ''


def _check_ema(ema: Any, owner: str) -> None:
    if is_number(ema) and 0.5 < ema < 1:
        expected = (
            f'the share of the new weights; for a share of {ema!r} of the average, use '
            f'ema={1 - ema:g}'
        )
        refuse(ema, 'ema', owner, expected)
    check_number(ema, 'ema', owner, above=0, most=0.5)


def _check_lazy(regularizer: Regularizer | None, owner: str) -> None:
    if regularizer is None:
        raise ConfigError(
            f'regularize_every of {owner} needs a regularizer, but there is none; add '
            'regularizer=dict(type=...), or leave regularize_every out'
        )
    check_lazy(regularizer, 'regularize_every', owner)


def _other_default_hooks(state: PruningState) -> dict[str, Any]:
    """Return the default hooks of the config, except the one that saves checkpoints."""
    given = state.config.get('default_hooks') or {}
    return {name: hook for name, hook in given.items() if name != 'checkpoint'}
