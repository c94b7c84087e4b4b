"""Partly accumulated gradients, kept in training checkpoints."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from torch import Tensor

from easypruner.base.distributed import average
from easypruner.base.modules import unwrapped
from easypruner.engine.pruning_hook import accumulation_of

_KEY = 'gradients'


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
        self._loaded = checkpoint.get(_KEY, {})

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
            checkpoint[_KEY] = {name: grad.cpu() for name, grad in _gradients(runner).items()}


def _is_halfway(runner: Any) -> bool:
    return runner.iter < runner.max_iters and bool(runner.iter % accumulation_of(runner))


def _gradients(runner: Any) -> dict[str, Tensor]:
    named = unwrapped(runner.model).named_parameters()
    return {name: p.grad for name, p in named if p.grad is not None}
