"""PruningHook: lets a regularizer push channels during a training stage."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

import torch
from mmengine.hooks import Hook
from torch import Tensor, nn

from easypruner.base.finite import norms_of
from easypruner.base.modules import unwrapped
from easypruner.engine.health import GRADIENT, Health
from easypruner.graph import ChannelGraph, Masks
from easypruner.strategies import Progress, Regularizer, Schedule
from easypruner.strategies.regularizers.pull import PullMeter, weak_strength

_WARNING = 'reach_warning'
_LOOP = 'closed_loop'
_PULL = 'pull'


def accumulation_of(runner: Any) -> int:
    """Return how many iterations an optimizer update takes."""
    return int(runner.optim_wrapper._accumulative_counts)


@dataclass(eq=False)
class PruningHook(Hook):
    """Lets a regularizer push channels during a training stage.

    The hook adds the gradient of the penalty right before every optimizer update, or shrinks the
    parameters right after it. At these points each update is pushed exactly once, with gradient
    accumulation, autocast, a GradScaler and clipping. A penalty on forward passes is added to the
    loss of each forward pass, before the loss is divided by the accumulation and scaled.

    Attributes:
        regularizer: the regularizer that pushes.
        masks: True = keep; None if no masks are selected yet.
        schedule: the learning rates of the stage.
        trace: a function that makes the channel graph of the runner's model.
        warn: a function that gets a warning if the regularizer cannot bring to zero what must go;
            None to skip these checks.
        every: the number of updates from one push to the next. A push stands for all of these
            updates (lazy regularization; Karras et al., 2020, arXiv 1912.04958, section 3.1).
        note: a function that prints a text while the stage runs.
        health: what collects numbers that must be finite; None to collect nothing.
        meter: what measures how strongly the loss holds the parameters that must come to zero.
    """

    priority: ClassVar = 'VERY_LOW'

    regularizer: Regularizer
    masks: Masks | None
    schedule: Schedule
    trace: Callable[[nn.Module], ChannelGraph]
    warn: Callable[[str], object] | None = None
    every: int = 1
    note: Callable[[str], object] | None = None
    health: Health | None = None
    meter: PullMeter = field(default_factory=PullMeter, init=False)
    _warning: str | None = field(default=None, init=False)
    _loop_state: dict[str, Any] = field(default_factory=dict, init=False)
    _done: int = field(default=0, init=False)
    _registered: contextlib.ExitStack = field(default_factory=contextlib.ExitStack, init=False)
    _pushed: list[nn.Parameter] = field(default_factory=list, init=False)
    _slowest: Schedule = field(init=False)
    _graph: ChannelGraph = field(init=False)

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Restore the warning of an interrupted stage, which depends on its initial weights."""
        self._warning = checkpoint.get(_WARNING)
        self._loop_state = checkpoint.get(_LOOP, self._loop_state)
        self.meter.load_state_dict(checkpoint.get(_PULL, {}))

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Save the warning with the weights."""
        checkpoint[_WARNING] = self._warning
        checkpoint[_PULL] = self.meter.state_dict()
        if self.regularizer.loop is not None:
            checkpoint[_LOOP] = self.regularizer.loop.state_dict()

    def before_train(self, runner: Any) -> None:
        """Trace the model and register the regularizer. MMEngine has loaded checkpoints by now."""
        graph = self._graph = self.trace(unwrapped(runner.model))
        self._start(graph)
        wrapper = runner.optim_wrapper
        # A resumed stage continues to count after the updates that are done.
        self._done = min(runner.iter // accumulation_of(runner), self.schedule.updates)

        def push(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
            self._before_step(runner, optimizer)

        def shrink(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
            self._after_step(runner, optimizer)

        self._registered.callback(wrapper.optimizer.register_step_pre_hook(push).remove)
        self._registered.callback(wrapper.optimizer.register_step_post_hook(shrink).remove)
        if self.regularizer.watches:
            self._registered.enter_context(self.regularizer.watching(graph, self.masks))
            self._registered.enter_context(_loss_changed(wrapper, partial(self._joined, runner)))

    def _before_step(self, runner: Any, optimizer: torch.optim.Optimizer) -> None:
        """Measure the pull and push, right before an optimizer update."""
        regularizer, graph = self.regularizer, self._graph
        if self._measures:
            entries = regularizer.to_zero(graph, self.masks)
            progress = self._progress(optimizer, getattr(optimizer, 'grad_scale', None))
            self.meter.before(entries, self._slowest.optimizer.adaptive, progress)
        if self._is_due:
            self._note_gradients(runner, GRADIENT)
            regularizer.before_step(graph, self.masks, self._progress_of_push(optimizer))
            if not regularizer.is_proximal:
                self._note_gradients(runner, f'what {self._name} adds to gradients')

    def _after_step(self, runner: Any, optimizer: torch.optim.Optimizer) -> None:
        """Measure the pull and push, right after an optimizer update."""
        was_skipped = _was_skipped(optimizer)
        if was_skipped:
            self.meter.forget()
        elif self._measures:
            self._measure(self._graph, optimizer)
        if self._is_due and not was_skipped:
            self.regularizer.after_step(self._graph, self.masks, self._progress(optimizer))
            if self.regularizer.is_proximal:
                self._note(runner, f'what {self._name} makes of weights', self._pushed)
        self._done += 1

    def _joined(self, runner: Any, loss: Tensor) -> Tensor:
        """Return the loss of a forward pass plus the penalty on it."""
        times = self._times if self._is_due else 0
        progress = self._progress(runner.optim_wrapper.optimizer)
        total = self.regularizer.joined(loss, progress, times)
        penalty = (total - loss).detach()
        runner.message_hub.update_scalar('train/penalty', penalty)
        if times:
            self._note(runner, f'forward_penalty() of {self._name}', [penalty])
        return total

    def _note_gradients(self, runner: Any, source: str) -> None:
        self._note(runner, source, [p.grad for p in self._pushed if p.grad is not None])

    def _note(self, runner: Any, source: str, tensors: Sequence[Tensor]) -> None:
        """Note tensors that must be finite."""
        if self.health is not None:
            self.health.note(runner.iter, source, norms_of(tensors))

    @property
    def _name(self) -> str:
        return f'the regularizer {type(self.regularizer).__name__}'

    def _start(self, graph: ChannelGraph) -> None:
        """Choose the strength, and warn if it is too weak."""
        regularizer = self.regularizer
        self._slowest = self.schedule.slowest(regularizer.pushed_names(graph, self.masks))
        regularizer.schedule(self._slowest)
        if regularizer.loop is not None:
            regularizer.loop.load_state_dict(self._loop_state)
            # What is pushed was prepared above, with other strengths.
            regularizer.refresh()
        names = set(regularizer.pushed_names(graph, self.masks))
        parameters = [(n, p) for n, p in graph.model.named_parameters() if p.requires_grad]
        # A regularizer that cannot tell what it pushes may push everything.
        self._pushed = [p for n, p in parameters if n in names or not names]
        if self.warn is None:
            return
        if self._warning is None:
            self._warning = weak_reach(regularizer, self._slowest, graph, self.masks)
            reach = regularizer.reach(self._slowest)
            largest = regularizer.largest(graph, self.masks)
            self.meter.alone = largest * regularizer.strength / reach if reach else 0.0
        if self._warning:
            self.warn(self._warning)

    @property
    def _measures(self) -> bool:
        """Whether the pull of the loss is measured at this update."""
        regularizer = self.regularizer
        # A closed loop finds the strength by itself, and an adaptive optimizer hides the penalty.
        known = regularizer.is_proximal or not self._slowest.optimizer.adaptive
        wanted = self.warn is not None and regularizer.loop is None and known
        return wanted and self.meter.is_due(self._done, self.schedule.updates)

    def _measure(self, graph: ChannelGraph, optimizer: torch.optim.Optimizer) -> None:
        """Measure the update that the optimizer has made; tell if the strength is too low."""
        entries = self.regularizer.to_zero(graph, self.masks)
        adaptive = self._slowest.optimizer.adaptive
        ended = self.meter.after(entries, adaptive, self._progress(optimizer))
        if ended and len(self.meter.found) == 1 and self.note is not None:
            self.note(self.advice)

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
        momentum = self._slowest.momentum
        updates = self.schedule.updates
        return Progress(self._done, updates, scale, lr, optimizer, momentum, self._times)

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

    @property
    def measured(self) -> dict[str, Any]:
        """The strength, the form, the strength that is enough without a loss, and the pulls."""
        regularizer = self.regularizer
        return {
            'strength': regularizer.strength,
            'form': 'proximal' if regularizer.is_proximal else 'gradient',
            'alone': self.meter.alone,
            'pulls': [asdict(found) for found in self.meter.found],
        }

    @property
    def advice(self) -> str:
        """What strength would be enough, if the present one is not, or ''."""
        return weak_strength(self.regularizer, self.meter)

    def after_train(self, runner: Any) -> None:
        """Remove everything that was registered; warn if a closed loop has not arrived."""
        self.close()
        if self.warn is not None:
            self.warn(self.regularizer.unmet(self._graph, self.masks))

    def close(self) -> None:
        """Remove everything that was registered, also after training has failed."""
        self._registered.close()


@contextlib.contextmanager
def _loss_changed(wrapper: Any, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Apply a function to each loss that an MMEngine OptimWrapper gets during a block."""
    update = wrapper.update_params

    def update_params(loss: Tensor, *args: Any, **kwargs: Any) -> None:
        update(change(loss), *args, **kwargs)

    wrapper.update_params = update_params
    try:
        yield
    finally:
        del wrapper.update_params


def _was_skipped(optimizer: torch.optim.Optimizer) -> bool:
    """Tell whether the last step did nothing, because a GradScaler found infinite gradients."""
    found = getattr(optimizer, 'found_inf', None)
    return found is not None and bool(found)


def weak_reach(
    regularizer: Regularizer, schedule: Schedule, graph: ChannelGraph, masks: Masks | None
) -> str:
    """Return a warning if the reach of a penalty is too small for the channels, or ''."""
    if not regularizer.pushes_parameters or regularizer.loop is not None:
        return ''
    reach, needed = regularizer.reach(schedule), regularizer.needed_reach(graph, masks)
    if reach >= needed:
        return ''
    return (
        f'{type(regularizer).__name__} has a reach of {reach:.2g}, but it needs at least '
        f'{needed:.2g}: the removed channels will not come close to zero, and the cut will cost '
        f'accuracy; {regularizer.remedy(schedule, max(5.0, 1.25 * needed))}'
    )
