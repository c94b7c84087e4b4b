"""The stage Calibrate: batch norm statistics of the pruned network."""

from __future__ import annotations

from itertools import islice
from typing import Any

import torch
from mmengine.runner import Runner
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from easypruner.contracts import Stage
from easypruner.engine.distributed import average_buffers, is_main
from easypruner.engine.progress import StageProgress
from easypruner.errors import ConfigError, EasyPrunerError
from easypruner.pipeline.stages.common import loaded_runner, with_row, with_weights
from easypruner.pipeline.state import PruningState


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
            calibrate(model, self._passes(loader, total, progress))
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


@torch.no_grad()
def calibrate(model: nn.Module, batches: Any) -> None:
    """Reset the running statistics of ``model`` and average them over ``batches``, in place."""
    norms = [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats
    ]
    before = [(norm, norm.momentum) for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        # Without a momentum torch keeps the plain average.
        norm.momentum = None
        norm.train()
    preprocessor: Any = model.data_preprocessor
    for batch in batches:
        data = preprocessor(batch, True)
        model(data['inputs'], mode='tensor')
    for norm, momentum in before:
        norm.momentum = momentum
    model.eval()
