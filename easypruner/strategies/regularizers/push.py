"""Push: lets a regularizer push at each update of an optimizer, in whatever loop."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from easypruner.errors import ConfigError
from easypruner.graph import ChannelGraph, Masks
from easypruner.strategies.regularizers.pull import PullMeter, weak_strength
from easypruner.strategies.regularizers.reach import weak_reach
from easypruner.strategies.regularizers.regularizer import Regularizer
from easypruner.strategies.regularizers.schedule import Progress, Schedule

GRADIENT = 'gradient'
"""The source of gradients as they are before a push."""


@dataclass(eq=False)
class Push:
    """Lets a regularizer push channels while an optimizer trains a network.

    The gradient of the penalty is added right before every update of the optimizer, or the
    parameters shrink right after it. At these points each update is pushed exactly once, with
    gradient accumulation, autocast, a GradScaler, clipping and closures. A penalty on forward
    passes has to :meth:`join` the loss of each forward pass, before the loss is divided by the
    accumulation and scaled. The push of masks ends when they are cut.

    Attributes:
        regularizer: the regularizer that pushes.
        graph: the channel graph of the network.
        masks: True = keep; None if no masks are selected yet.
        schedule: the learning rates of the training.
        warn: a function that gets a warning if the regularizer cannot bring to zero what must go;
            None to skip these checks.
        every: the number of updates from one push to the next. A push stands for all of these
            updates (lazy regularization; Karras et al., 2020, arXiv 1912.04958, section 3.1).
        note: a function that gets what the first measurement of the pull says, or ''.
        observe: a function that gets the source of numbers that must be finite, and the tensors.
        joining: how the loss of the training gets the penalty on forward passes, for a message.
        meter: what measures how strongly the loss holds the parameters that must come to zero.
        done: the number of updates that are done.
    """

    regularizer: Regularizer
    graph: ChannelGraph
    masks: Masks | None
    schedule: Schedule
    warn: Callable[[str], object] | None = None
    every: int = 1
    note: Callable[[str], object] | None = None
    observe: Callable[[str, Sequence[Tensor]], object] | None = None
    joining: str = 'loss = pusher.loss(loss)'
    meter: PullMeter = field(default_factory=PullMeter, init=False)
    done: int = field(default=0, init=False)
    _warning: str | None = field(default=None, init=False)
    _loop_state: Mapping[str, Any] = field(default_factory=dict, init=False)
    _registered: contextlib.ExitStack = field(default_factory=contextlib.ExitStack, init=False)
    _pushed: list[nn.Parameter] = field(default_factory=list, init=False)
    _shapes: list[torch.Size] = field(default_factory=list, init=False)
    _losses: int = field(default=0, init=False)
    _has_begun: bool = field(default=False, init=False)
    _strength: float | None = field(default=None, init=False)
    _optimizer: Optimizer | None = field(default=None, init=False)
    _slowest: Schedule = field(init=False)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue an interrupted training, before or after :meth:`start`.

        Parts that are missing start anew; the strength is then chosen from the schedule.
        """
        self._warning = state.get('warning')
        self._loop_state = state.get('loop', {})
        self._strength = state.get('strength')
        self.meter.load_state_dict(state.get('pull', {}))
        self.done = state.get('done', 0)
        if self._optimizer is not None:
            self._restore()

    def state_dict(self) -> dict[str, Any]:
        """Return what an interrupted training needs to continue."""
        loop = self.regularizer.loop
        state = {
            'done': self.done,
            'strength': self.regularizer.strength,
            'warning': self._warning,
            'pull': self.meter.state_dict(),
        }
        return state if loop is None else state | {'loop': loop.state_dict()}

    def start(self, optimizer: Optimizer) -> None:
        """Choose the strength, warn if it is too weak, and follow the optimizer."""
        self._optimizer = optimizer
        self._choose()
        if self.warn is not None:
            self._check_reach()
        for hook in (
            optimizer.register_step_pre_hook(self._before),
            optimizer.register_step_post_hook(self._after),
        ):
            self._registered.callback(hook.remove)
        if self.regularizer.watches:
            self._registered.callback(_compile_anew)
            self._registered.enter_context(self.regularizer.watching(self.graph, self.masks))
            _compile_anew()

    def _choose(self) -> None:
        regularizer, graph = self.regularizer, self.graph
        self._slowest = self.schedule.slowest(regularizer.pushed_names(graph, self.masks))
        regularizer.schedule(self._slowest)
        self._restore()
        names = set(regularizer.pushed_names(graph, self.masks))
        parameters = [(n, p) for n, p in graph.model.named_parameters() if p.requires_grad]
        # A regularizer that cannot tell what it pushes may push everything.
        self._pushed = [p for n, p in parameters if n in names or not names]
        self._shapes = [parameter.shape for parameter in self._pushed]
        self._groups = graph.groups

    def _restore(self) -> None:
        """Give the regularizer the strengths of an interrupted training."""
        if self._strength is not None:
            self.regularizer.strength = self._strength
        if self.regularizer.loop is not None:
            self.regularizer.loop.load_state_dict(self._loop_state)
        # What is pushed may have been prepared with other strengths.
        self.regularizer.refresh()

    def _check_reach(self) -> None:
        """Warn if the reach of the penalty is too small, also when a training continues."""
        assert self.warn is not None
        regularizer, graph = self.regularizer, self.graph
        if self._warning is None:
            self._warning = weak_reach(regularizer, self._slowest, graph, self.masks)
            reach = regularizer.reach(self._slowest)
            largest = regularizer.largest(graph, self.masks)
            self.meter.alone = largest * regularizer.strength / reach if reach else 0.0
        if self._warning:
            self.warn(self._warning)

    def _before(self, optimizer: Optimizer, args: Any, kwargs: Any) -> Any:
        """Push before an update, or after the closure that computes its gradients."""
        if self.is_over:
            return None
        positional = len(args) > 1 and callable(args[1])
        closure = args[1] if positional else kwargs.get('closure')
        if closure is None:
            self._before_step(optimizer)
            return None

        def pushed() -> Any:
            loss = closure()
            self._before_step(optimizer)
            return loss

        if positional:
            return (args[0], pushed, *args[2:]), kwargs
        return args, {**kwargs, 'closure': pushed}

    def _before_step(self, optimizer: Optimizer) -> None:
        """Measure the pull and push, right before an optimizer update."""
        regularizer, graph = self.regularizer, self.graph
        self._check_joined()
        if not self._has_begun:
            # The network may have been moved to another device since the start.
            regularizer.refresh()
            self._has_begun = True
        if self._measures:
            entries = regularizer.to_zero(graph, self.masks)
            progress = self._progress(getattr(optimizer, 'grad_scale', None))
            self.meter.before(entries, self._slowest.optimizer.adaptive, progress)
        if self._is_due:
            self._observe_gradients(GRADIENT)
            regularizer.before_step(graph, self.masks, self._progress_of_push(optimizer))
            if not regularizer.is_proximal:
                self._observe_gradients(f'what {self._name} adds to gradients')

    def _after(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """Measure the pull and push, right after an optimizer update."""
        if self.is_over:
            return
        was_skipped = _was_skipped(optimizer)
        if was_skipped:
            self.meter.forget()
        elif self._measures:
            self._measure()
        if self._is_due and not was_skipped:
            self.regularizer.after_step(self.graph, self.masks, self._progress())
            if self.regularizer.is_proximal:
                self._observe(f'what {self._name} makes of weights', self._pushed)
        self.done += 1
        self._losses = 0

    def join(self, loss: Tensor) -> Tensor:
        """Return the loss of a forward pass plus the penalty on it."""
        if not self.regularizer.watches or self.is_over:
            return loss
        self._losses += 1
        times = self._times if self._is_due else 0
        total = self.regularizer.joined(loss, self._progress(), times)
        if times:
            self._observe(f'forward_penalty() of {self._name}', [(total - loss).detach()])
        return total

    def _check_joined(self) -> None:
        if self.regularizer.watches and not self._losses:
            raise ConfigError(
                f'{type(self.regularizer).__name__} is a penalty on what forward passes compute, '
                'but since the last update it has not joined a loss; expected '
                f'{self.joining} after each forward pass of training, before loss.backward()'
            )

    @property
    def is_over(self) -> bool:
        """Whether the masks were cut, so that nothing is left to push."""
        if self.masks is None:
            return False
        now = [parameter.shape for parameter in self._pushed]
        return self.graph.groups is not self._groups or now != self._shapes

    def _observe_gradients(self, source: str) -> None:
        self._observe(source, [p.grad for p in self._pushed if p.grad is not None])

    def _observe(self, source: str, tensors: Sequence[Tensor]) -> None:
        if self.observe is not None:
            self.observe(source, tensors)

    @property
    def _name(self) -> str:
        return f'the regularizer {type(self.regularizer).__name__}'

    @property
    def _measures(self) -> bool:
        """Whether the pull of the loss is measured at this update."""
        regularizer = self.regularizer
        # A closed loop finds the strength by itself, and an adaptive optimizer hides the penalty.
        known = regularizer.is_proximal or not self._slowest.optimizer.adaptive
        wanted = self.warn is not None and regularizer.loop is None and known
        return wanted and self.meter.is_due(self.done, self.schedule.updates)

    def _measure(self) -> None:
        """Measure the update that the optimizer has made; tell if the strength is too low."""
        entries = self.regularizer.to_zero(self.graph, self.masks)
        adaptive = self._slowest.optimizer.adaptive
        ended = self.meter.after(entries, adaptive, self._progress())
        if ended and len(self.meter.found) == 1 and self.note is not None:
            self.note(self.advice)

    @property
    def _is_due(self) -> bool:
        """Whether the regularizer pushes at this update."""
        return self.done % self.every == 0

    @property
    def _times(self) -> int:
        """How many updates a push stands for: those until the next push."""
        return max(min(self.every, self.schedule.updates - self.done), 1)

    def _progress(self, scale: Any = None) -> Progress:
        assert self._optimizer is not None
        lr = float(self._optimizer.param_groups[0]['lr'])
        updates, momentum = self.schedule.updates, self._slowest.momentum
        # A loop may make more updates than it has announced.
        done = min(self.done, updates)
        return Progress(done, updates, scale, lr, self._optimizer, momentum, self._times)

    def _progress_of_push(self, optimizer: Optimizer) -> Progress:
        """Return the progress for a push that stands for all updates until the next push."""
        scale, times = getattr(optimizer, 'grad_scale', None), self._times
        if times == 1:
            return self._progress(scale)
        # One push replaces several, so its gradient and its learning rate are scaled up.
        device = optimizer.param_groups[0]['params'][0].device
        scale = torch.tensor(float(times), device=device) if scale is None else scale * times
        progress = self._progress(scale)
        return replace(progress, lr=progress.lr * times)

    @property
    def measured(self) -> dict[str, Any]:
        """The strength, the form, the strength that is enough without a loss, and the pulls."""
        return {
            'strength': self.regularizer.strength,
            'form': self.form,
            'alone': self.meter.alone,
            'pulls': [asdict(found) for found in self.meter.found],
        }

    @property
    def form(self) -> str:
        """``'gradient'`` or ``'proximal'``."""
        return 'proximal' if self.regularizer.is_proximal else 'gradient'

    @property
    def advice(self) -> str:
        """What strength would be enough, if the present one is not, or ''."""
        return weak_strength(self.regularizer, self.meter)

    def close(self) -> None:
        """Remove everything that was registered, also after a training has failed."""
        self._registered.close()


def _compile_anew() -> None:
    """Let compiled networks be compiled again, as they do not see that their hooks have changed."""
    if 'torch._dynamo' in sys.modules:
        torch.compiler.reset()


def _was_skipped(optimizer: Optimizer) -> bool:
    """Tell whether the last step did nothing, because a GradScaler found infinite gradients."""
    found = getattr(optimizer, 'found_inf', None)
    return found is not None and bool(found)
