"""The stage Evaluate: a row for the network as it stands."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

from easypruner.base.checks import check_path, check_text
from easypruner.engine.checkpoint import load_weights, read_weights
from easypruner.pipeline.stages.common import loaded_runner, with_row, with_weights
from easypruner.strategies import Stage
from easypruner.strategies.stages.forecast import Forecast, Step
from easypruner.strategies.stages.state import PruningState


class Evaluate(Stage):
    """Measures accuracy on the validation data, and the cost.

    Args:
        row: name of the row in the final table; None for no row.
        checkpoint: weights to start from, instead of where the run stands: as the first stage,
            a trained network.
        name: of the stage.
    """

    def __init__(
        self, row: str | None = 'baseline', checkpoint: str | None = None, name: str = 'evaluate'
    ) -> None:
        super().__init__(name)
        self.row = check_text(row, 'row', 'Evaluate')
        given = checkpoint is not None
        self.checkpoint = check_path(checkpoint, 'checkpoint', 'Evaluate') if given else None

    def check(self) -> None:
        if self.checkpoint is not None:
            read_weights(self.checkpoint)

    def forecast(self, before: Forecast) -> Forecast:
        if self.checkpoint is not None and not before.cut:
            load_weights(copy.deepcopy(before.graph.model), self.checkpoint)
        return replace(before, step=Step(loads=self.checkpoint is not None))

    def run(self, state: PruningState) -> PruningState:
        """Evaluate; weights from outside are copied into the run."""
        if self.checkpoint is not None:
            runner = loaded_runner(replace(state, checkpoint=Path(self.checkpoint)))
            state = with_weights(state, runner.plain_model)
        else:
            runner = loaded_runner(state)
        return with_row(state, self.row, runner, state.run.trace(runner.plain_model))

    def plan(self, state: PruningState) -> str:
        return f'evaluate {self.checkpoint}' if self.checkpoint else 'evaluate'
