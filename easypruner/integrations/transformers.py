"""Regularize: a callback of the Hugging Face Trainer that lets a regularizer push."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from easypruner.errors import missing_package
from easypruner.graph import ChannelGraph
from easypruner.slimming import Pusher, regularize

try:
    from transformers import TrainerCallback
except ImportError as error:
    raise missing_package('transformers', __name__) from error

_STATE = 'easypruner'
"""The key of the push in a Trainer's state, which its checkpoints have as JSON."""


class Regularize(TrainerCallback):
    """Lets a regularizer push while a Trainer trains a model.

    The number of updates, the optimizer and its scheduler are those of the Trainer. The state of
    the push is in ``trainer_state.json`` of the Trainer's checkpoints.

    Args:
        graph: the channel graph of the model.
        regularizer: as for :func:`easypruner.regularize`.
        **options: other arguments of :func:`easypruner.regularize`, such as ``masks`` and
            ``reach``.

    Attributes:
        pusher: the pusher; None before the training.
    """

    def __init__(self, graph: ChannelGraph, regularizer: Any, **options: Any) -> None:
        self.pusher: Pusher | None = None
        self._graph = graph
        self._regularizer = regularizer
        self._options = options

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start to push. The Trainer has restored the optimizer of a checkpoint by now."""
        scheduler = kwargs['lr_scheduler']
        saved = state.stateful_callbacks.get(_STATE) if state.global_step else None
        options = {
            'updates': state.max_steps,
            'scheduler': getattr(scheduler, 'scheduler', scheduler),
            'state': None if saved is None else _with_sums(saved, torch.tensor),
            **self._options,
        }
        self.pusher = regularize(
            self._graph.model, kwargs['optimizer'], self._graph, self._regularizer, **options
        )

    def loss(self, loss: Tensor) -> Tensor:
        """Return the loss of ``compute_loss`` with the penalty on its forward pass."""
        return loss if self.pusher is None else self.pusher.loss(loss)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Put the state of the push into the state that the Trainer is about to save."""
        if self.pusher is not None and control.should_save:
            own = self.pusher.state_dict()
            state.stateful_callbacks[_STATE] = _with_sums(own, Tensor.tolist)

    on_epoch_end = on_evaluate = on_step_end

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop pushing."""
        if self.pusher is not None:
            self.pusher.close()


def _with_sums(state: dict[str, Any], convert: Callable[[Any], Any]) -> dict[str, Any]:
    """Return a state with its tensors converted to or from lists of numbers."""
    pull = state['pull']
    return {**state, 'pull': {**pull, 'sums': [convert(row) for row in pull['sums']]}}
