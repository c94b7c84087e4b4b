"""The training loop of stages: an epoch can end, and continue, between any two iterations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mmengine.runner import EpochBasedTrainLoop

from easypruner.base.randomness import random_state, restore_random_state

_DONE, _RANDOM = 'done', 'random'


class TrainLoop(EpochBasedTrainLoop):
    """MMEngine's loop over epochs, which can also continue in the middle of an epoch.

    The data of the iterations that are done is read again and passed over, so the order of the
    data and the random numbers of worker processes are those of an uninterrupted epoch.

    Attributes:
        between: a function that is called after each iteration but the last of an epoch.
    """

    between: Callable[[], None] | None = None
    _position: Mapping[str, Any] | None = None
    _done = 0

    def position(self) -> dict[str, Any]:
        """Return where the epoch stands, between two iterations."""
        return {_DONE: self._done, _RANDOM: random_state()}

    def continue_at(self, position: Mapping[str, Any] | None) -> None:
        """Let the next epoch start at a position; None for its first iteration."""
        self._position = position

    def run_epoch(self) -> None:
        """Run the iterations of an epoch that are not done."""
        position, self._position = self._position, None
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        batches = iter(self.dataloader)
        self._done = 0 if position is None else position[_DONE]
        for _ in range(self._done):
            next(batches)
        if position is not None:
            restore_random_state(position[_RANDOM])
        for index, batch in enumerate(batches, self._done):
            self.run_iter(index, batch)
            self._done = index + 1
            if self.between is not None and self._done < len(self.dataloader):
                self.between()
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1
