"""PruningHook: lets a regularizer push channels during a training stage."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar
from unittest import mock

import torch
from mmengine.hooks import Hook
from torch import Tensor, nn

from easypruner.base.modules import unwrapped
from easypruner.graph import ChannelGraph, Masks
from easypruner.strategies import Progress, Regularizer, Schedule

_WARNING = 'reach_warning'


def accumulation_of(runner: Any) -> int:
    """Return how many iterations an optimizer update takes."""
    return int(runner.optim_wrapper._accumulative_counts)


@dataclass(eq=False)
class PruningHook(Hook):
    """Lets a regularizer push channels during a training stage.

    The hook adds the gradient of the penalty right before every optimizer update. At this point
    each update gets the gradient exactly once, with gradient accumulation, autocast, a GradScaler
    and clipping. A penalty on forward passes is added to the loss of each forward pass, before
    the loss is divided by the accumulation and scaled.

    Attributes:
        regularizer: the regularizer that pushes.
        masks: True = keep; None if no masks are selected yet.
        schedule: the learning rates of the stage.
        trace: a function that makes the channel graph of the runner's model.
        warn: a function that gets a warning if the reach of the regularizer is too small; None to
            skip this check.
        every: the number of updates from one push to the next. A push stands for all of these
            updates (lazy regularization; Karras et al., 2020, arXiv 1912.04958, section 3.1).
    """

    priority: ClassVar = 'VERY_LOW'

    regularizer: Regularizer
    masks: Masks | None
    schedule: Schedule
    trace: Callable[[nn.Module], ChannelGraph]
    warn: Callable[[str], object] | None = None
    every: int = 1
    _warning: str | None = field(default=None, init=False)
    _done: int = field(default=0, init=False)
    _registered: contextlib.ExitStack = field(default_factory=contextlib.ExitStack, init=False)

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Restore the warning of an interrupted stage, which depends on its initial weights."""
        self._warning = checkpoint.get(_WARNING)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Save the warning with the weights."""
        checkpoint[_WARNING] = self._warning

    def before_train(self, runner: Any) -> None:
        """Trace the model and register the regularizer. MMEngine has loaded checkpoints by now."""
        graph = self.trace(unwrapped(runner.model))
        regularizer = self.regularizer
        regularizer.schedule(self.schedule)
        if self.warn is not None:
            if self._warning is None:
                self._warning = weak_reach(regularizer, self.schedule, graph, self.masks)
            if self._warning:
                self.warn(self._warning)
        wrapper = runner.optim_wrapper
        # A resumed stage continues to count after the updates that are done.
        self._done = min(runner.iter // accumulation_of(runner), self.schedule.updates)

        def push(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
            if self._is_due:
                regularizer.add_gradient(graph, self.masks, self._progress_of_push(optimizer))
            self._done += 1

        def joined(loss: Tensor) -> Tensor:
            times = self._times if self._is_due else 0
            total = regularizer.joined(loss, self._progress(wrapper.optimizer), times)
            runner.message_hub.update_scalar('train/penalty', (total - loss).detach())
            return total

        self._registered.callback(wrapper.optimizer.register_step_pre_hook(push).remove)
        if regularizer.watches:
            self._registered.enter_context(regularizer.watching(graph, self.masks))
            self._registered.enter_context(_loss_changed(wrapper, joined))

    @property
    def _is_due(self) -> bool:
        """Whether the regularizer pushes at this update."""
        return self._done % self.every == 0

    @property
    def _times(self) -> int:
        """How many updates a push stands for: those until the next push."""
        return max(min(self.every, self.schedule.updates - self._done), 1)

    def _progress(self, optimizer: torch.optim.Optimizer, scale: Any = None) -> Progress:
        lr = float(optimizer.param_groups[0]['lr'])
        return Progress(self._done, self.schedule.updates, scale, lr, optimizer)

    def _progress_of_push(self, optimizer: torch.optim.Optimizer) -> Progress:
        """Return the progress for a push that stands for all updates until the next push."""
        scale, times = getattr(optimizer, 'grad_scale', None), self._times
        if times == 1:
            return self._progress(optimizer, scale)
        # One push replaces several, so its gradient and its learning rate are scaled up.
        device = optimizer.param_groups[0]['params'][0].device
        scale = torch.tensor(float(times), device=device) if scale is None else scale * times
        progress = self._progress(optimizer, scale)
        return replace(progress, lr=progress.lr * times)

    def after_train(self, runner: Any) -> None:
        """Remove everything that was registered."""
        self.close()

    def close(self) -> None:
        """Remove everything that was registered, also after training has failed."""
        self._registered.close()


def _loss_changed(
    wrapper: Any, change: Callable[[Tensor], Tensor]
) -> contextlib.AbstractContextManager[object]:
    """Apply a function to each loss that an MMEngine OptimWrapper gets during a block."""
    update = wrapper.update_params

    def update_params(loss: Tensor, *args: Any, **kwargs: Any) -> None:
        update(change(loss), *args, **kwargs)

    return mock.patch.object(wrapper, 'update_params', update_params)


def weak_reach(
    regularizer: Regularizer, schedule: Schedule, graph: ChannelGraph, masks: Masks | None
) -> str:
    """Return a warning if the reach of a penalty is too small for the channels, or ''."""
    if not regularizer.pushes_parameters:
        return ''
    reach, needed = regularizer.reach(schedule), regularizer.needed_reach(graph, masks)
    if reach >= needed:
        return ''
    return (
        f'{type(regularizer).__name__} has a reach of {reach:.2g}, but it needs at least '
        f'{needed:.2g}: the removed channels will not come close to zero, and the cut will cost '
        f'accuracy; train longer, or set strength=dict(reach={max(5.0, 1.25 * needed):.1f})'
    )
