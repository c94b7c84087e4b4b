"""AveragingHook: an exponential moving average of the weights during a training stage."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.hooks import EMAHook, Hook
from mmengine.registry import HOOKS
from torch import Tensor

from easypruner.base.checks import is_number
from easypruner.base.distributed import average_buffers
from easypruner.base.modules import unwrapped
from easypruner.graph.recording.inventory import named_tensors

_AVERAGES = 'averages'
_DEFAULT = 0.0002
"""The momentum of MMEngine's averages."""


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

    def before_train_epoch(self, runner: Any) -> None:
        """Follow the optimizer. A regularizer that moves weights after it has registered by now."""
        if self._handle is not None:
            return
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


def averaging_hooks(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the custom hooks of a config that average weights on the side, as EMAHook does.

    Such a hook swaps its averages in for a validation and out again, so that the accuracy would not
    be that of the weights which a stage saves. Runners of stages leave it out.
    """
    hooks = config.get('custom_hooks') or ()
    return [hook for hook in hooks if isinstance(hook, Mapping) and _averages(hook.get('type'))]


def _averages(kind: Any) -> bool:
    found = HOOKS.get(kind) if isinstance(kind, str) else kind
    return isinstance(found, type) and issubclass(found, EMAHook)


def averaging_warnings(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a warning for each hook that is left out, with what averages instead."""
    return tuple(
        f'custom_hooks: {_short_name(hook["type"])} is left out, because its averages are not what '
        f'a stage saves; ema={_momentum(hook):g} of a Train stage averages the weights'
        for hook in averaging_hooks(config)
    )


def _momentum(hook: Mapping[str, Any]) -> float:
    momentum: Any = hook.get('momentum')
    return float(momentum) if is_number(momentum) else _DEFAULT


def _short_name(kind: Any) -> str:
    return str(getattr(kind, '__name__', kind)).rpartition('.')[2]
