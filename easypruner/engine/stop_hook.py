"""The hook that ends a training stage after a request to stop, right after a checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from mmengine.hooks import Hook

from easypruner.base.stopping import Stop


class StopHook(Hook):
    """Ends training after an epoch's checkpoint, or at once if the epoch would take too long.

    A stage resumes at an epoch, so an epoch that does not end in time is lost in any case.
    """

    # Runs after the hook that saves the checkpoint.
    priority = 'LOWEST'

    def __init__(self, stop: Stop, clock: Callable[[], float] = time.monotonic) -> None:
        self._stop = stop
        self._clock = clock
        self._start = 0.0

    def before_train_epoch(self, runner: Any) -> None:
        """Note when the epoch starts."""
        self._start = self._clock()

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """End training if it should end and the epoch will not end in time."""
        if self._stop.requested:
            per_iteration = (self._clock() - self._start) / (batch_idx + 1)
            left = len(runner.train_dataloader) - batch_idx - 1
            self._stop.unless_saved_in(per_iteration * left)

    def after_train_epoch(self, runner: Any) -> None:
        """End training if it should end: the checkpoint of the epoch has been saved."""
        self._stop.here()
