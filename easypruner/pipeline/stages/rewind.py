"""The stage Rewind: the weights from before any push, with the masks that were found since."""

from __future__ import annotations

from dataclasses import replace

from easypruner.engine.pretrained import load_weights, starts_trained
from easypruner.errors import ConfigError
from easypruner.pipeline.stages.common import stage_runner, with_row, with_weights
from easypruner.strategies.stages.forecast import Forecast, Step, unpruned_before
from easypruner.strategies.stages.stage import RowStage
from easypruner.strategies.stages.state import PruningState


class Rewind(RowStage):
    """Returns to the weights that the network had before any stage pushed it towards a cut.

    The masks that were selected since then stay. Training under a penalty on all channels then only
    decides which channels go, and leaves no trace in the weights. The network keeps its shape, so
    this stage comes before the cut.

    Use when:
        Masks come from a training with a penalty, and the next training should not inherit what
        this penalty did to the kept channels. The scripts of the released MaskSparsity code start
        both trainings from the same trained network. Renda et al. (2020, arXiv 2003.02389) rewind
        weights in the same sense.

    Fails when:
        Nothing was pushed yet, or the network has been cut; the plan says so. Time is tight: the
        training under the penalty is not used further.

    Values:
        Put it right behind ``SelectMask``, without arguments.
    """

    def forecast(self, before: Forecast) -> Forecast:
        before.check_not_fixed()
        if before.cut:
            raise ConfigError(
                'Rewind returns to the weights of the uncut network, but an earlier stage cuts it; '
                'move Rewind before the cut'
            )
        trained = starts_trained(before.config)
        step = Step(rewinds=True)
        if unpruned_before((*before.earlier, step), trained) == len(before.earlier):
            raise ConfigError(
                'Rewind returns to the weights from before the first push, but no stage before it '
                'pushes a trained network; remove it, or put it behind a Train stage with a '
                'regularizer that starts from trained weights'
            )
        return replace(before, step=step)

    def run(self, state: PruningState) -> PruningState:
        """Load the weights, save them, evaluate."""
        assert state.unpruned is not None, 'the forecast has checked that a stage pushes'
        runner = stage_runner(state)
        model = runner.plain_model
        load_weights(model, state.unpruned)
        state = with_weights(state, model)
        return with_row(state, self.row, runner, state.run.trace(model))

    def plan(self, state: PruningState) -> str:
        return 'return to the weights from before any push, with the same masks'
