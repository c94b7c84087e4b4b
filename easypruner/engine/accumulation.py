"""Gradients that are half accumulated when an epoch ends, kept in training checkpoints."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from torch import Tensor

from easypruner.base.distributed import average
from easypruner.base.modules import unwrapped
from easypruner.engine.hooks import accumulation_of

_KEY = 'gradients'


class AccumulationHook(Hook):
    """Saves what gradients have been accumulated so far, and goes on from it.

    An epoch need not end with an optimizer update. Without what is accumulated by then, a run that
    resumes there would make its next update from fewer batches.
    """

    # Behind what else ends an epoch, ahead of the checkpoint.
    priority = 'LOW'

    def __init__(self) -> None:
        self._loaded: dict[str, Tensor] = {}

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Take the gradients of a stage that was stopped."""
        self._loaded = checkpoint.get(_KEY, {})

    def before_train(self, runner: Any) -> None:
        """Put them back."""
        for name, parameter in unwrapped(runner.model).named_parameters():
            if name in self._loaded:
                parameter.grad = self._loaded[name].to(parameter)

    def after_train_epoch(self, runner: Any) -> None:
        """Give all processes the same gradients, as one of them saves.

        Each has its own until the update, which takes their mean: it is the same then.
        """
        if _is_halfway(runner):
            average(_gradients(runner).values())

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Save the gradients besides the weights, if there are any for the next update."""
        if _is_halfway(runner):
            checkpoint[_KEY] = {name: grad.cpu() for name, grad in _gradients(runner).items()}


def _is_halfway(runner: Any) -> bool:
    return runner.iter < runner.max_iters and bool(runner.iter % accumulation_of(runner))


def _gradients(runner: Any) -> dict[str, Tensor]:
    named = unwrapped(runner.model).named_parameters()
    return {name: p.grad for name, p in named if p.grad is not None}
