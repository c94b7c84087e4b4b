"""PruningHook: lets a regularizer push channels during a training stage of an MMEngine runner."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

from mmengine.hooks import Hook
from torch import Tensor, nn

from easypruner.base.finite import norms_of
from easypruner.base.modules import unwrapped
from easypruner.engine.health import Health
from easypruner.graph import ChannelGraph, Masks
from easypruner.strategies import Regularizer, Schedule
from easypruner.strategies.regularizers.pull import PullMeter
from easypruner.strategies.regularizers.push import Push

_KEYS = {'warning': 'reach_warning', 'loop': 'closed_loop', 'pull': 'pull'}
"""Part of the state of a push -> its key in a training checkpoint."""
_JOINING = 'a train_step() that calls optim_wrapper.update_params(loss)'


def accumulation_of(runner: Any) -> int:
    """Return how many iterations an optimizer update takes."""
    return int(runner.optim_wrapper._accumulative_counts)


@dataclass(eq=False)
class PruningHook(Hook):
    """Lets a regularizer push channels during a training stage, with a :class:`Push`.

    A penalty on forward passes is added to each loss that the runner's OptimWrapper gets, before
    the wrapper divides the loss by the accumulation and scales it.

    Attributes:
        regularizer: the regularizer that pushes.
        masks: True = keep; None if no masks are selected yet.
        schedule: the learning rates of the stage.
        trace: a function that makes the channel graph of the runner's model.
        warn: a function that gets a warning if the regularizer cannot bring to zero what must go;
            None to skip these checks.
        every: the number of updates from one push to the next.
        note: a function that prints a text while the stage runs.
        health: what collects numbers that must be finite; None to collect nothing.
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
    _loaded: dict[str, Any] = field(default_factory=dict, init=False)
    _registered: contextlib.ExitStack = field(default_factory=contextlib.ExitStack, init=False)
    _push: Push = field(init=False)

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Read the state of an interrupted stage; a warning depends on its initial weights."""
        self._loaded = {part: checkpoint[k] for part, k in _KEYS.items() if k in checkpoint}

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Save the state of the push with the weights."""
        state = self._push.state_dict()
        checkpoint.update({k: state[part] for part, k in _KEYS.items() if part in state})

    def before_train(self, runner: Any) -> None:
        """Trace the model and start to push. MMEngine has loaded checkpoints by now."""
        graph = self.trace(unwrapped(runner.model))
        push = self._push = Push(
            self.regularizer,
            graph,
            self.masks,
            self.schedule,
            self.warn,
            self.every,
            self.note,
            partial(self._observe, runner),
            _JOINING,
        )
        # A resumed stage continues to count after the updates that are done.
        done = min(runner.iter // accumulation_of(runner), self.schedule.updates)
        push.load_state_dict(self._loaded | {'done': done})
        self._registered.callback(push.close)
        push.start(runner.optim_wrapper.optimizer)
        if self.regularizer.watches:
            changed = _loss_changed(runner.optim_wrapper, partial(self._joined, runner))
            self._registered.enter_context(changed)

    def _joined(self, runner: Any, loss: Tensor) -> Tensor:
        """Return the loss of a forward pass plus the penalty on it."""
        total = self._push.join(loss)
        runner.message_hub.update_scalar('train/penalty', (total - loss).detach())
        return total

    def _observe(self, runner: Any, source: str, tensors: Sequence[Tensor]) -> None:
        """Note tensors that must be finite."""
        if self.health is not None:
            self.health.note(runner.iter, source, norms_of(tensors))

    @property
    def meter(self) -> PullMeter:
        """What has measured how strongly the loss holds what must come to zero."""
        return self._push.meter

    @property
    def measured(self) -> dict[str, Any]:
        """The strength, the form, the strength that is enough without a loss, and the pulls."""
        return self._push.measured

    @property
    def advice(self) -> str:
        """What strength would be enough, if the present one is not, or ''."""
        return self._push.advice

    def after_train(self, runner: Any) -> None:
        """Remove everything that was registered; warn if a closed loop has not arrived."""
        self.close()
        if self.warn is not None:
            self.warn(self.regularizer.unmet(self._push.graph, self.masks))

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
