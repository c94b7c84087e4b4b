"""The average of the weights over a training stage, which is what the stage leaves behind."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from mmengine.hooks import Hook
from torch import Tensor

from easypruner.base.distributed import average_buffers
from easypruner.base.modules import unwrapped

_KEY = 'averages'


class AveragingHook(Hook):
    """Keeps ``average = (1 - momentum) * average + momentum * weight``, once per optimizer update.

    What is averaged are parameters and running statistics, from what they are when the stage
    starts. Validation sees the averages, and at the end the model holds them. Training checkpoints
    hold both, so that a resumed stage goes on as if it had not stopped. (MMEngine's EMAHook counts
    iterations, not updates, and would swap the weights back for the evaluation behind the stage.)

    Args:
        momentum: the share of the newest weights in each update of the average.
    """

    # Behind the averaging of buffers over processes, ahead of the checkpoint.
    priority = 'LOW'

    def __init__(self, momentum: float) -> None:
        self._momentum = momentum
        self._loaded: dict[str, Tensor] | None = None
        self._own: dict[str, Tensor] = {}
        self._averages: dict[str, Tensor] = {}
        self._handle: Any = None

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Take the averages of a stage that was stopped."""
        self._loaded = checkpoint.get(_KEY)

    def before_train(self, runner: Any) -> None:
        """Begin with the weights at hand, or where the stage was stopped."""
        model = unwrapped(runner.model)
        self._own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        self._averages = {name: tensor.detach().clone() for name, tensor in self._own.items()}
        for name, tensor in (self._loaded or {}).items():
            self._averages[name].copy_(tensor)
        names = [name for name, tensor in self._own.items() if tensor.is_floating_point()]
        averages = [self._averages[name] for name in names]
        weights = [self._own[name] for name in names]

        @torch.no_grad()
        def update(optimizer: Any, args: Any, kwargs: Any) -> None:
            torch._foreach_lerp_(averages, weights, self._momentum)

        self._handle = runner.optim_wrapper.optimizer.register_step_post_hook(update)

    def after_train_epoch(self, runner: Any) -> None:
        """Take over what is counted, and give all processes the same running statistics."""
        for name, tensor in self._own.items():
            if not tensor.is_floating_point():
                self._averages[name].copy_(tensor)
        with self._swapped():
            average_buffers(unwrapped(runner.model))

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Save the averages besides the weights."""
        checkpoint[_KEY] = {name: tensor.cpu() for name, tensor in self._averages.items()}

    def before_val_epoch(self, runner: Any) -> None:
        """Let a validation within the stage see the averages."""
        self._swap()

    def after_val_epoch(self, runner: Any, metrics: Any = None) -> None:
        """Put the weights back."""
        self._swap()

    def after_train(self, runner: Any) -> None:
        """Leave the averages in the model; a validation from here on swaps nothing."""
        self._handle.remove()
        self._swap()
        self._own = {}

    @contextlib.contextmanager
    def _swapped(self) -> Iterator[None]:
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, tensor in self._own.items():
            weight = tensor.detach().clone()
            tensor.copy_(self._averages[name])
            self._averages[name].copy_(weight)
