"""The stage Calibrate: batch norm statistics of the pruned network."""

from __future__ import annotations

import torch

from easypruner.base.checks import check_count, check_text
from easypruner.base.distributed import average_buffers
from easypruner.pipeline.stages.common import (
    forward_pass,
    loaded_runner,
    stage_context,
    with_row,
    with_weights,
)
from easypruner.strategies import Stage
from easypruner.strategies.measures.calibration import calibrate
from easypruner.strategies.stages.state import PruningState


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
        self.batches = check_count(batches, 'batches', 'Calibrate')
        self.row = check_text(row, 'row', 'Calibrate')

    def run(self, state: PruningState) -> PruningState:
        """Calibrate, save the weights, evaluate."""
        runner = loaded_runner(state)
        model = runner.plain_model
        batches = stage_context(state).some_batches(self.batches, 'Calibrate')
        torch.manual_seed(state.run.seed)
        calibrate(model, batches, forward_pass)
        average_buffers(model)
        state = with_weights(state, model)
        return with_row(state, self.row, runner, state.run.trace(model))

    def plan(self, state: PruningState) -> str:
        return f'recalibrate batch norm on {self.batches} batches'
