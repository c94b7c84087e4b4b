"""What the next cut will cost, measured on a copy of the network before it."""

from __future__ import annotations

from torch import nn

from easypruner.base.distributed import average_buffers
from easypruner.base.modules import copy_of
from easypruner.base.randomness import fixed_seed
from easypruner.engine.runner import StageRunner
from easypruner.errors import EasyPrunerError
from easypruner.graph.masks import Masks
from easypruner.graph.pruning import prune
from easypruner.pipeline.stages.common import forward_pass, stage_context
from easypruner.strategies import Regularizer
from easypruner.strategies.measures.calibration import calibrate
from easypruner.strategies.measures.remains import Remains
from easypruner.strategies.stages.state import PruningState

_BATCHES = 8
_POINT = 1.0
"""The loss of accuracy that is worth a warning, in points."""


def cut_warning(
    state: PruningState, masks: Masks, runner: StageRunner, regularizer: Regularizer
) -> str:
    """Return a warning if the channels to remove are not silent, or ''.

    A copy of the network is cut. If its accuracy is lower, its batch norms are recalibrated on a
    few batches, and the better accuracy counts. The warning says which scales and biases are not at
    zero, and the accuracy before and after the cut.

    Args:
        state: the state of the run.
        masks: the masks of the cut, True = keep.
        runner: the runner of the trained network.
        regularizer: the regularizer that has pushed. Scales that it does not push may stay.
    """
    graph = state.run.trace(runner.plain_model)
    remains = Remains.of(graph, masks)
    stay = Remains.of(graph, masks, regularizer.pushed_names(graph, masks)).scales
    with fixed_seed(state.run.seed):
        try:
            before = runner.accuracy()
            cut = copy_of(runner.plain_model)
            prune(cut, masks, graph=state.run.trace(cut))
            after = runner.accuracy_of(cut)
            if before - after >= _POINT:
                _recalibrate(cut, state)
                after = max(after, runner.accuracy_of(cut))
        except EasyPrunerError:
            # Without an accuracy, only the scales are known.
            return f'{remains.text()}; the cut will change the outputs' if stay else ''
    if not stay and before - after < _POINT:
        return ''
    return (
        f'{remains.text()}; the cut is expected to take the accuracy from {before:.2f} to '
        f'{after:.2f} % (batch norm recalibrated on {_BATCHES} batches, if that is better)'
    )


def _recalibrate(model: nn.Module, state: PruningState) -> None:
    calibrate(model, stage_context(state).some_batches(_BATCHES, 'the expected cut'), forward_pass)
    average_buffers(model)
