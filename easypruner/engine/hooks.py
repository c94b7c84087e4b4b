"""Hooks of a training stage: random seeds, buffers over processes, the progress display."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from mmengine.hooks import Hook

from easypruner.base.distributed import average_buffers
from easypruner.base.modules import unwrapped
from easypruner.base.randomness import seed_everything, seed_worker
from easypruner.engine.progress import StageProgress


class EpochSeedHook(Hook):
    """Seeds all random number generators before each epoch from (seed, stage, epoch, rank).

    A run that resumes at an epoch therefore gives the same result as an uninterrupted run.
    """

    priority = 'VERY_HIGH'

    def __init__(self, seed: int, stage: int) -> None:
        self._seed = seed
        self._stage = stage

    def before_train_epoch(self, runner: Any) -> None:
        """Seed this process, and the worker processes that the data loader is about to start."""
        entropy = (self._seed, self._stage, runner.epoch, runner.rank)
        seed_everything(*entropy)
        runner.train_dataloader.worker_init_fn = partial(seed_worker, entropy=entropy)


class BufferHook(Hook):
    """Averages the buffers of all processes after every epoch, before the checkpoint is saved.

    Without this hook the checkpoint would have the buffers of one process, and every process would
    validate with its own buffers.
    """

    priority = 'LOW'

    def after_train_epoch(self, runner: Any) -> None:
        """Average the buffers."""
        average_buffers(unwrapped(runner.model))


class ProgressHook(Hook):
    """Shows the progress of a stage and the time that is left."""

    priority = 'LOWEST'

    def __init__(self, progress: StageProgress) -> None:
        self._progress = progress

    def before_train(self, runner: Any) -> None:
        """Start the display at the first iteration, or at the one at which a run resumes."""
        self._progress.start(runner.max_iters, runner.iter)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Advance the display by one iteration."""
        loss = outputs.get('loss') if isinstance(outputs, dict) else None
        text = f'epoch {runner.epoch + 1}/{runner.max_epochs}'
        if isinstance(loss, torch.Tensor) and batch_idx % 10 == 0:
            text += f'  loss {loss.item():.3f}'
        self._progress.advance(text)

    def after_train_epoch(self, runner: Any) -> None:
        """Report that an epoch has finished."""
        self._progress.epoch(runner.epoch + 1, runner.max_epochs)

    def after_train(self, runner: Any) -> None:
        """Remove the display."""
        self._progress.stop()
