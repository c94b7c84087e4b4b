"""The stage Evaluate: adds a row for the current network."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

from easypruner.base.checks import check_path
from easypruner.engine.checkpoint import load_weights, read_weights
from easypruner.pipeline.stages.common import loaded_runner, with_row, with_weights
from easypruner.strategies.stages.forecast import Forecast, Step
from easypruner.strategies.stages.stage import RowStage
from easypruner.strategies.stages.state import PruningState


class Evaluate(RowStage):
    """Measures the accuracy on the validation data and the cost of the network.

    Use when:
        A run starts from a trained network (``checkpoint``), or the table needs a row that no other
        stage adds.

    Fails when:
        The checkpoint does not fit the current network; the error names the tensor.

    Values:
        ``dict(type='Evaluate', checkpoint='trained.pth')`` as the first stage, in place of a
        ``Train`` stage.

    Args:
        row: the name of the row in the final table; None for no row.
        checkpoint: the weights to continue from; None for the current weights.
        name: the name of the stage.
    """

    def __init__(
        self, row: str | None = 'baseline', checkpoint: str | None = None, name: str = 'evaluate'
    ) -> None:
        super().__init__(row, name)
        self.checkpoint: str | None = None
        if checkpoint is not None:
            self.checkpoint = check_path(checkpoint, 'checkpoint', 'Evaluate')

    def check(self) -> None:
        if self.checkpoint is not None:
            read_weights(self.checkpoint)

    def forecast(self, before: Forecast) -> Forecast:
        if self.checkpoint is not None and not before.cut:
            load_weights(copy.deepcopy(before.graph.model), self.checkpoint)
        return replace(before, step=Step(loads=self.checkpoint is not None))

    def run(self, state: PruningState) -> PruningState:
        """Evaluate. A checkpoint is copied into the run."""
        if self.checkpoint is not None:
            runner = loaded_runner(replace(state, checkpoint=Path(self.checkpoint)))
            state = with_weights(state, runner.plain_model)
        else:
            runner = loaded_runner(state)
        return with_row(state, self.row, runner, state.run.trace(runner.plain_model))

    def plan(self, state: PruningState) -> str:
        return f'evaluate {self.checkpoint}' if self.checkpoint else 'evaluate'
