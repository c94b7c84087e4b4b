"""Regularize: a callback of Lightning that lets a regularizer push during ``Trainer.fit``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from easypruner.errors import ConfigError, missing_package
from easypruner.graph import ChannelGraph
from easypruner.slimming import Pusher, regularize

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError as error:
    raise missing_package('lightning', __name__) from error


class Regularize(Callback):
    """Lets a regularizer push while a Trainer fits a module.

    The number of updates, the optimizer and its scheduler are those of the Trainer. The state of
    the push is in the Trainer's checkpoints.

    Args:
        graph: the channel graph of the module, or of the network inside it.
        regularizer: as for :func:`easypruner.regularize`.
        optimizer: the number of the optimizer, if the module has several.
        **options: other arguments of :func:`easypruner.regularize`, such as ``masks`` and
            ``reach``.

    Attributes:
        pusher: the pusher; None before the training.
    """

    def __init__(
        self, graph: ChannelGraph, regularizer: Any, optimizer: int = 0, **options: Any
    ) -> None:
        self.pusher: Pusher | None = None
        self._graph = graph
        self._regularizer = regularizer
        self._optimizer = optimizer
        self._options = options
        self._loaded: Mapping[str, Any] | None = None

    @property
    def state_key(self) -> str:
        """The key of the state in checkpoints; callbacks of several optimizers differ in it."""
        return self._generate_state_key(optimizer=self._optimizer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start to push. The Trainer has restored the optimizers of a checkpoint by now."""
        optimizer = trainer.optimizers[self._optimizer]
        options = {
            'updates': _updates(trainer),
            **_scheduler(trainer, optimizer),
            'state': self._loaded,
            **self._options,
        }
        self.pusher = regularize(
            self._graph.model, optimizer, self._graph, self._regularizer, **options
        )

    def loss(self, loss: Tensor) -> Tensor:
        """Return the loss of a ``training_step`` with the penalty on its forward pass."""
        return loss if self.pusher is None else self.pusher.loss(loss)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop pushing."""
        if self.pusher is not None:
            self.pusher.close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Stop pushing, without a word on what a failed training has left."""
        if self.pusher is not None:
            self.pusher.__exit__(type(exception), exception, None)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the pusher, for the Trainer's checkpoints."""
        return {} if self.pusher is None else self.pusher.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with the state of a checkpoint."""
        self._loaded = state_dict or None


def _updates(trainer: Trainer) -> int:
    """Return the number of updates of a fit."""
    updates = trainer.estimated_stepping_batches
    if not 0 < updates < float('inf'):
        raise ConfigError(
            f'the Trainer makes {updates} updates, but a regularizer needs to know how many; give '
            'the Trainer max_epochs or max_steps, or updates= to Regularize'
        )
    return int(updates)


def _scheduler(trainer: Trainer, optimizer: Any) -> dict[str, Any]:
    """Return the scheduler of an optimizer, as arguments of regularize()."""
    for found in trainer.lr_scheduler_configs:
        if found.scheduler.optimizer is optimizer and not found.reduce_on_plateau:
            every = found.frequency
            if found.interval == 'epoch':
                every *= math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
            return {'scheduler': found.scheduler, 'scheduler_every': every}
    return {}
