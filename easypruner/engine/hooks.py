"""Hooks of a training stage: seeds, buffers, gradients, averaged weights; the progress display."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, TypeVar

import rich.progress
import torch
from mmengine.hooks import Hook
from rich.console import Console
from torch import Tensor

from easypruner.base.distributed import average, average_buffers
from easypruner.base.modules import unwrapped
from easypruner.base.randomness import seed_everything, seed_worker
from easypruner.engine.pruning_hook import accumulation_of
from easypruner.engine.response import set_mode
from easypruner.graph.recording.inventory import named_tensors

_Item = TypeVar('_Item')

_SECONDS_BETWEEN_LINES = 10.0


class StageProgress:
    """Shows the progress of one stage and the time that is left.

    Args:
        title: the name of the stage.
        console: the console to print to; a bar is drawn only on a terminal.
        shown: whether anything is printed; only one process of a distributed run prints.
    """

    def __init__(self, title: str, console: Console, shown: bool = True) -> None:
        self._title = title
        self._console = console
        self._shown = shown
        self._bar: rich.progress.Progress | None = None
        self._task: rich.progress.TaskID | None = None
        self._last_line = time.monotonic()

    def start(self, total: int, done: int = 0) -> None:
        """Start the display with ``done`` of ``total`` steps."""
        if not (self._shown and self._console.is_terminal):
            return
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn('  {task.description}', markup=False),
            rich.progress.BarColumn(),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TimeElapsedColumn(),
            rich.progress.TextColumn('left'),
            rich.progress.TimeRemainingColumn(),
            rich.progress.TextColumn('{task.fields[text]}', markup=False),
            console=self._console,
            transient=True,
        )
        self._bar.start()
        self._task = self._bar.add_task(self._title, total=total, completed=done, text='')

    def advance(self, text: str) -> None:
        """Advance the display by one step."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=1, text=text)

    def epoch(self, done: int, total: int) -> None:
        """Print that an epoch has finished, if there is no bar and the last line is not recent."""
        if not self._shown or self._bar is not None:
            return
        now = time.monotonic()
        if done == total or now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            self._console.print(f'  {self._title}: epoch {done}/{total}', markup=False)

    def track(self, items: Iterable[_Item], total: int) -> Iterator[_Item]:
        """Yield ``items`` and show the progress. There are at most ``total`` items."""
        self.start(total)
        try:
            for item in items:
                yield item
                self.advance('')
        finally:
            self.stop()

    def stop(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


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


_AVERAGES = 'averages'


class AveragingHook(Hook):
    """Averages weights: ``average = (1 - momentum) * average + momentum * weight`` at each update.

    The averages cover parameters and running statistics, and start with their values at the start
    of the stage. Validation uses the averages, and the model has them at the end. Training
    checkpoints have weights and averages, so that a resumed stage gives the same result.

    MMEngine's EMAHook cannot be used. It counts iterations instead of updates, and it would restore
    the weights before the evaluation at the end of the stage.

    Args:
        momentum: the share of the newest weights in each update of the average.
    """

    # Runs after the buffers are averaged over processes, before the checkpoint is saved.
    priority = 'LOW'

    def __init__(self, momentum: float) -> None:
        self._momentum = momentum
        self._loaded: dict[str, Tensor] | None = None
        self._own: dict[str, Tensor] = {}
        self._averages: dict[str, Tensor] = {}
        self._handle: Any = None

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Read the averages of an interrupted stage."""
        self._loaded = checkpoint.get(_AVERAGES)

    def before_train(self, runner: Any) -> None:
        """Start with the current weights, or with the averages of an interrupted stage."""
        self._own = named_tensors(unwrapped(runner.model))
        self._averages = {name: tensor.detach().clone() for name, tensor in self._own.items()}
        for name, tensor in (self._loaded or {}).items():
            self._averages[name].copy_(tensor)
        names = [name for name, tensor in self._own.items() if tensor.is_floating_point()]
        averages, weights = ([own[n] for n in names] for own in (self._averages, self._own))

        @torch.no_grad()
        def update(optimizer: Any, args: Any, kwargs: Any) -> None:
            torch._foreach_lerp_(averages, weights, self._momentum)

        self._handle = runner.optim_wrapper.optimizer.register_step_post_hook(update)

    def after_train_epoch(self, runner: Any) -> None:
        """Copy counters from the weights, and average running statistics over processes."""
        for name, tensor in self._own.items():
            if not tensor.is_floating_point():
                self._averages[name].copy_(tensor)
        with contextlib.ExitStack() as back:
            self._swap()
            back.callback(self._swap)
            average_buffers(unwrapped(runner.model))

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Save the averages with the weights."""
        checkpoint[_AVERAGES] = {name: tensor.cpu() for name, tensor in self._averages.items()}

    def before_val_epoch(self, runner: Any) -> None:
        """Put the averages into the model, so that validation uses them."""
        self._swap()

    def after_val_epoch(self, runner: Any, metrics: Any = None) -> None:
        """Put the weights back into the model."""
        self._swap()

    def after_train(self, runner: Any) -> None:
        """Put the averages into the model for good. Later validations swap nothing."""
        self._handle.remove()
        self._swap()
        self._own = {}

    @torch.no_grad()
    def _swap(self) -> None:
        for name, tensor in self._own.items():
            weight = tensor.detach().clone()
            tensor.copy_(self._averages[name])
            self._averages[name].copy_(weight)
