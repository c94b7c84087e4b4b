"""The hooks of a training stage: the regularizer, the seeds, the progress display."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from mmengine.hooks import Hook
from torch import Tensor, nn

from easypruner.base.distributed import average_buffers
from easypruner.base.modules import unwrapped
from easypruner.base.randomness import seed_everything, seed_worker
from easypruner.engine.progress import StageProgress
from easypruner.graph import ChannelGraph
from easypruner.graph.masks import Masks
from easypruner.strategies import Progress, Regularizer, Schedule

_WARNING = 'reach_warning'


def accumulation_of(runner: Any) -> int:
    """Return how many iterations there are to an optimizer update."""
    return int(runner.optim_wrapper._accumulative_counts)


class PruningHook(Hook):
    """Lets a regularizer push during a training stage.

    Its gradient is added right before every optimizer update. There and nowhere else it is exactly
    the penalty's gradient, once per update: under gradient accumulation, autocast, a GradScaler
    and clipping alike. Its penalty on forward passes joins the loss of each of them, before that
    is divided by the accumulation and scaled.

    Args:
        regularizer: what pushes.
        masks: True = keep; None where none were selected yet.
        schedule: of the stage.
        trace: makes the channel graph of the runner's model.
        warn: called when the regularizer cannot bring down what it should; None where it need not.
        every: updates from one push to the next, which stands for as many as there are until then
            (lazy regularization; Karras et al., 2020, arXiv 1912.04958, section 3.1).
    """

    priority = 'VERY_LOW'

    def __init__(
        self,
        regularizer: Regularizer,
        masks: Masks | None,
        schedule: Schedule,
        trace: Callable[[nn.Module], ChannelGraph],
        warn: Callable[[str], object] | None = None,
        every: int = 1,
    ) -> None:
        self._regularizer = regularizer
        self._masks = masks
        self._schedule = schedule
        self._trace = trace
        self._warn = warn
        self._every = every
        self._warning: str | None = None
        self._done = 0
        self._registered = contextlib.ExitStack()

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Take over what a stage that was stopped had to warn of, on the weights it began with."""
        self._warning = checkpoint.get(_WARNING)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Save it besides the weights."""
        checkpoint[_WARNING] = self._warning

    def before_train(self, runner: Any) -> None:
        """Trace the model and register what pushes; checkpoints are loaded by now."""
        graph = self._trace(unwrapped(runner.model))
        regularizer = self._regularizer
        regularizer.schedule(self._schedule)
        if self._warn is not None:
            if self._warning is None:
                self._warning = weak_reach(regularizer, self._schedule, graph, self._masks)
            if self._warning:
                self._warn(self._warning)
        wrapper = runner.optim_wrapper
        # Updates before a resume are done: count on from there.
        self._done = min(runner.iter // accumulation_of(runner), self._schedule.updates)

        def push(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
            if self._is_due:
                regularizer.add_gradient(graph, self._masks, self._progress_of_push(optimizer))
            self._done += 1

        def joined(loss: Tensor) -> Tensor:
            times = self._times if self._is_due else 0
            return regularizer.joined(loss, self._progress(wrapper.optimizer), times)

        self._registered.callback(wrapper.optimizer.register_step_pre_hook(push).remove)
        if regularizer.watches:
            self._registered.enter_context(regularizer.watching(graph, self._masks))
            self._registered.enter_context(_loss_changed(wrapper, joined))

    @property
    def _is_due(self) -> bool:
        """Whether there is a push at this update."""
        return self._done % self._every == 0

    @property
    def _times(self) -> int:
        """How many updates a push stands for: all until the next."""
        return max(min(self._every, self._schedule.updates - self._done), 1)

    def _progress(self, optimizer: torch.optim.Optimizer, scale: Any = None) -> Progress:
        lr = float(optimizer.param_groups[0]['lr'])
        return Progress(self._done, self._schedule.updates, scale, lr, optimizer)

    def _progress_of_push(self, optimizer: torch.optim.Optimizer) -> Progress:
        """Return where training stands, for a push that stands for all updates until the next."""
        scale, times = getattr(optimizer, 'grad_scale', None), self._times
        if times == 1:
            return self._progress(optimizer, scale)
        # So many steps at once: the gradient is as much larger, and moves as much further.
        device = optimizer.param_groups[0]['params'][0].device
        scale = torch.tensor(float(times), device=device) if scale is None else scale * times
        progress = self._progress(optimizer, scale)
        return replace(progress, lr=progress.lr * times)

    def after_train(self, runner: Any) -> None:
        """Let go of the optimizer and the network."""
        self.close()

    def close(self) -> None:
        """Undo what was registered, also where training has failed."""
        self._registered.close()


@contextlib.contextmanager
def _loss_changed(wrapper: Any, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let a function change each loss that an MMEngine OptimWrapper gets during the block."""
    update = wrapper.update_params

    def update_params(loss: Tensor, *args: Any, **kwargs: Any) -> None:
        update(change(loss), *args, **kwargs)

    wrapper.update_params = update_params
    try:
        yield
    finally:
        del wrapper.update_params


def weak_reach(
    regularizer: Regularizer, schedule: Schedule, graph: ChannelGraph, masks: Masks | None
) -> str:
    """Return a warning if a penalty's reach is too small to bring the channels down, or ''."""
    if not regularizer.pushes_parameters:
        return ''
    reach, needed = regularizer.reach(schedule), regularizer.needed_reach(graph, masks)
    if reach >= needed:
        return ''
    return (
        f'{type(regularizer).__name__} has a reach of {reach:.2g}, under the {needed:.2g} that it '
        f'takes at the least: the removed channels will not come down, and the cut will cost '
        f'accuracy; train longer, or set strength=dict(reach={max(5.0, 1.25 * needed):.1f})'
    )


class EpochSeedHook(Hook):
    """Seeds every source of chance before each epoch from (seed, stage, epoch, rank).

    A run that resumes at an epoch then goes on exactly as if it had never stopped.
    """

    priority = 'VERY_HIGH'

    def __init__(self, seed: int, stage: int) -> None:
        self._seed = seed
        self._stage = stage

    def before_train_epoch(self, runner: Any) -> None:
        """Seed this process, and the workers that the data loader is about to start."""
        entropy = (self._seed, self._stage, runner.epoch, runner.rank)
        seed_everything(*entropy)
        runner.train_dataloader.worker_init_fn = partial(seed_worker, entropy=entropy)


class BufferHook(Hook):
    """Averages the buffers of all processes after every epoch, before it is saved.

    Else the file would hold those of one process, and the others would measure with their own.
    """

    priority = 'LOW'

    def after_train_epoch(self, runner: Any) -> None:
        """Average."""
        average_buffers(unwrapped(runner.model))


class ProgressHook(Hook):
    """Shows how far the stage is and how long it will take."""

    priority = 'LOWEST'

    def __init__(self, progress: StageProgress) -> None:
        self._progress = progress

    def before_train(self, runner: Any) -> None:
        """Start at the first iteration, or where a resumed run goes on."""
        self._progress.start(runner.max_iters, runner.iter)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Move on by one iteration."""
        loss = outputs.get('loss') if isinstance(outputs, dict) else None
        text = f'epoch {runner.epoch + 1}/{runner.max_epochs}'
        if isinstance(loss, torch.Tensor) and batch_idx % 10 == 0:
            text += f'  loss {loss.item():.3f}'
        self._progress.advance(text)

    def after_train_epoch(self, runner: Any) -> None:
        """Say that an epoch is done."""
        self._progress.epoch(runner.epoch + 1, runner.max_epochs)

    def after_train(self, runner: Any) -> None:
        """Leave the display."""
        self._progress.stop()
