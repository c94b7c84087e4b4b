"""The stage Calibrate: batch norm statistics of the pruned network."""

from __future__ import annotations

from itertools import islice
from typing import Any

import torch
from mmengine.runner import Runner

from easypruner.contracts import Stage
from easypruner.engine.distributed import average_buffers, is_main
from easypruner.engine.progress import StageProgress
from easypruner.errors import ConfigError, EasyPrunerError
from easypruner.pipeline.stages.common import (
    forward_pass,
    loaded_runner,
    with_row,
    with_weights,
)
from easypruner.pipeline.state import PruningState
from easypruner.toolkit.calibration import calibrate


class Calibrate(Stage):
    """Estimates the running statistics of every batch norm anew, as averages over batches.

    The network computes other activations after a cut; weights are not changed.

    Args:
        batches: of training data.
        row: name of the row that the result gets in the final table; None for no row.
        name: of the stage.
    """

    def __init__(
        self, batches: int = 50, row: str | None = 'calibrated', name: str = 'calibrate'
    ) -> None:
        super().__init__(name)
        if batches < 1:
            raise ConfigError(f'batches={batches} of Calibrate; expected at least 1')
        self.batches = batches
        self.row = row

    def run(self, state: PruningState) -> PruningState:
        """Calibrate, save the weights, evaluate."""
        runner = loaded_runner(state)
        model = runner.plain_model
        loader = Runner.build_dataloader(
            state.config.train_dataloader.to_dict(), seed=state.run.seed
        )
        total = min(self.batches, len(loader))
        if total == 0:
            raise EasyPrunerError(
                'the training data set is empty: there is nothing to calibrate on'
            )
        progress = StageProgress(self.name, state.run.console, shown=is_main())
        torch.manual_seed(state.run.seed)
        progress.start(total)
        try:
            calibrate(model, self._passes(loader, total, progress), forward_pass)
        finally:
            progress.stop()
        average_buffers(model)
        state = with_weights(state, model)
        return with_row(state, self.row, runner, state.run.trace(model))

    def _passes(self, loader: Any, total: int, progress: StageProgress) -> Any:
        for batch in islice(loader, total):
            yield batch
            progress.advance('')

    def plan(self, state: PruningState) -> str:
        return f'recalibrate batch norm on {self.batches} batches'
