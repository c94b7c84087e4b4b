"""The hook that ends a training stage after a request to stop, right after a checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook

from easypruner.base.distributed import world_size
from easypruner.base.stopping import Stop
from easypruner.engine.train_loop import TrainLoop

PARTIAL = 'stopped_at_*.pth'
"""The checkpoints from the middle of an epoch."""
_POSITION = 'position'


class StopHook(Hook):
    """Saves a checkpoint after the iteration in which a request to stop comes, and ends training.

    Several processes do not stop at the same iteration, and a training loop of the config's own
    cannot continue in the middle of an epoch. Both end after the epoch's checkpoint, or at once if
    the epoch would take too long.
    """

    # Runs after the hook that saves the checkpoint.
    priority = 'LOWEST'

    def __init__(self, stop: Stop, clock: Callable[[], float] = time.monotonic) -> None:
        self._stop = stop
        self._clock = clock
        self._start = 0.0

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Continue where a stage was stopped."""
        if isinstance(runner.train_loop, TrainLoop):
            runner.train_loop.continue_at(checkpoint.get('meta', {}).get(_POSITION))

    def before_train(self, runner: Any) -> None:
        """Watch for requests between iterations."""
        if self._saves_anywhere(runner):
            runner.train_loop.between = partial(self._save, runner)

    def before_train_epoch(self, runner: Any) -> None:
        """Note when the epoch starts."""
        self._start = self._clock()

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """End training if it should end, and the epoch will neither be saved nor end in time."""
        if self._stop.requested and not self._saves_anywhere(runner):
            per_iteration = (self._clock() - self._start) / (batch_idx + 1)
            left = len(runner.train_dataloader) - batch_idx - 1
            self._stop.unless_saved_in(per_iteration * left)

    def after_train_epoch(self, runner: Any) -> None:
        """End training if it should end: the checkpoint of the epoch has been saved."""
        for path in Path(runner.work_dir).glob(PARTIAL):
            path.unlink(missing_ok=True)
        self._stop.here()

    def _save(self, runner: Any) -> None:
        """Save a checkpoint and end training if it should end."""
        if not self._stop.requested:
            return
        # Numbers that are not finite must not be saved; a hook that looks for them raises.
        runner.call_hook('before_leaving_epoch')
        meta = {'epoch': runner.epoch, 'iter': runner.iter, _POSITION: runner.train_loop.position()}
        name = PARTIAL.replace('*', str(runner.iter))
        runner.save_checkpoint(runner.work_dir, name, meta=meta)
        self._stop.here()

    @staticmethod
    def _saves_anywhere(runner: Any) -> bool:
        return world_size() == 1 and isinstance(runner.train_loop, TrainLoop)
