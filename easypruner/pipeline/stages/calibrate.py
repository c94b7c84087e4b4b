"""The stage Calibrate: estimates batch norm statistics again."""

from __future__ import annotations

import torch

from easypruner.base.checks import check_count
from easypruner.base.distributed import average_buffers
from easypruner.pipeline.stages.common import (
    forward_pass,
    loaded_runner,
    stage_context,
    with_row,
    with_weights,
)
from easypruner.strategies.measures.calibration import calibrate
from easypruner.strategies.stages.stage import RowStage
from easypruner.strategies.stages.state import PruningState


class Calibrate(RowStage):
    """Estimates the running statistics of every batch norm again, as averages over batches.

    After a cut, the remaining channels get other activations than before. The weights stay the
    same.

    Use when:
        A network with batch norm has been cut: it recovers much of the accuracy at the cost of some
        forward passes, before any training. EagleEye (Li et al., 2020, arXiv 2007.02491, section
        3.3) shows that the accuracy afterwards predicts that after training.

    Fails when:
        The network has no batch norms, or they get a single value of each channel in every batch;
        the error names the norm. Batches of other data than those of the task.

    Values:
        50 ``batches`` of the training batch size; more if the batches are small.

    Args:
        batches: the number of batches of training data.
        row: the name of the result's row in the final table; None for no row.
        name: the name of the stage.
    """

    def __init__(
        self, batches: int = 50, row: str | None = 'calibrated', name: str = 'calibrate'
    ) -> None:
        super().__init__(row, name)
        self.batches = check_count(batches, 'batches', 'Calibrate')

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
