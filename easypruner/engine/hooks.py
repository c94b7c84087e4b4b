"""Hooks of a training stage: seeds, buffers and gradients of all processes, modes, progress."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from mmengine.hooks import Hook
from torch import Tensor

from easypruner.base.distributed import average, average_buffers
from easypruner.base.modules import unwrapped
from easypruner.base.randomness import seed_everything, seed_worker
from easypruner.engine.checkpoint import PlainCheckpointHook
from easypruner.engine.progress import Epoch, StageProgress
from easypruner.engine.pruning_hook import accumulation_of
from easypruner.strategies.regularizers.response import set_mode


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
        self._losses: list[Tensor] = []
        self._epoch: Epoch | None = None

    def before_train(self, runner: Any) -> None:
        """Start the display at the first iteration, or at the one at which a run resumes."""
        self._progress.start(runner.max_iters, runner.iter)

    def before_train_epoch(self, runner: Any) -> None:
        """Show the last epoch, which was not validated."""
        self._show()
        self._losses = []

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Advance the display by one iteration."""
        loss = outputs.get('loss') if isinstance(outputs, dict) else None
        text = f'epoch {runner.epoch + 1}/{runner.max_epochs}'
        if isinstance(loss, Tensor):
            self._losses.append(loss.detach())
            if batch_idx % 10 == 0:
                text += f'  loss {loss.item():.3f}'
        self._progress.advance(text)

    def after_train_epoch(self, runner: Any) -> None:
        """Remember what is known of the epoch; its validation may follow."""
        loss = float(torch.stack(self._losses).mean()) if self._losses else None
        self._epoch = Epoch(runner.epoch + 1, runner.max_epochs, loss)

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Show the epoch with its accuracy."""
        if self._epoch is not None:
            found = [v for n, v in (metrics or {}).items() if 'accuracy' in n or 'top1' in n]
            self._epoch = replace(self._epoch, accuracy=float(found[0]) if found else None)
            self._show()

    def after_train(self, runner: Any) -> None:
        """Remove the display."""
        self._show()
        self._progress.stop()

    def _show(self) -> None:
        if self._epoch is not None:
            self._progress.epoch(self._epoch)
            self._epoch = None


class OptimizerModeHook(Hook):
    """Switches optimizers that have modes: schedule-free ones train and evaluate other weights."""

    priority = 'VERY_HIGH'

    def before_train_epoch(self, runner: Any) -> None:
        """Switch to the weights that are trained."""
        set_mode(runner.optim_wrapper.optimizer, 'train')

    def before_val_epoch(self, runner: Any) -> None:
        """Switch to the averaged weights."""
        set_mode(runner.optim_wrapper.optimizer, 'eval')

    def after_train(self, runner: Any) -> None:
        """Keep the averaged weights."""
        set_mode(runner.optim_wrapper.optimizer, 'eval')


_GRADIENTS = 'gradients'


class AccumulationHook(Hook):
    """Saves partly accumulated gradients at the end of an epoch, and restores them.

    An epoch does not always end with an optimizer update. Without the gradients accumulated so far,
    a resumed run would make its next update from fewer batches.
    """

    # Runs after the other hooks at the end of an epoch, before the checkpoint is saved.
    priority = 'LOW'

    def __init__(self) -> None:
        self._loaded: dict[str, Tensor] = {}

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Read the gradients of an interrupted stage."""
        self._loaded = checkpoint.get(_GRADIENTS, {})

    def before_train(self, runner: Any) -> None:
        """Restore the gradients."""
        for name, parameter in unwrapped(runner.model).named_parameters():
            if name in self._loaded:
                parameter.grad = self._loaded[name].to(parameter)

    def after_train_epoch(self, runner: Any) -> None:
        """Average the gradients over all processes, because only one process saves them.

        The update averages the gradients of all processes anyway, so its result stays the same.
        """
        if _is_halfway(runner):
            average(_gradients(runner).values())

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Save the gradients for the next update with the weights, if there are any."""
        if _is_halfway(runner):
            checkpoint[_GRADIENTS] = {name: grad.cpu() for name, grad in _gradients(runner).items()}


def _is_halfway(runner: Any) -> bool:
    return runner.iter < runner.max_iters and bool(runner.iter % accumulation_of(runner))


def _gradients(runner: Any) -> dict[str, Tensor]:
    named = unwrapped(runner.model).named_parameters()
    return {name: p.grad for name, p in named if p.grad is not None}


def training_hooks() -> list[Hook]:
    """Return the hooks that every training needs, whatever its stage."""
    return [BufferHook(), OptimizerModeHook(), AccumulationHook(), PlainCheckpointHook()]
