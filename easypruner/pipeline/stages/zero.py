"""The stage Zero: sets channels to zero without a cut."""

from __future__ import annotations

from dataclasses import replace

from easypruner.base.checks import check_flag
from easypruner.pipeline.stages.common import loaded_runner, with_row, with_weights
from easypruner.strategies.measures.zeroing import zero
from easypruner.strategies.stages.forecast import Forecast, Step
from easypruner.strategies.stages.stage import RowStage
from easypruner.strategies.stages.state import PruningState


class Zero(RowStage):
    """Sets the filters of the channels that masks remove to zero, without a cut.

    In soft filter pruning (He et al., 2018, arXiv 1808.06866), this happens after every epoch. The
    filters are trained further, and a channel that has become large again is kept next time. The
    masks stay selected, so that a ``Prune`` may follow.

    As in the paper, only filters are set to zero. Such a channel still has the constant that its
    norm or bias adds. If that was zero as well, no gradient would pass a ReLU behind it, and the
    channel could not return. ``Prune(compensate='mean')`` compensates such constants.

    Use when:
        Channels should be able to return: within ``Iterative`` with ``schedule='constant'``, each
        round being a selection, ``Zero`` and one epoch of ``Train``.

    Fails when:
        Accuracy right after it matters; the network recovers only by training. With
        ``norms=True``, channels behind a ReLU cannot return.

    Values:
        The paper selects by ``L2Norm``, the same share of each layer, after every epoch.

    Args:
        norms: whether to set biases, and scales and biases of norms, to zero as well.
        row: the name of the result's row in the final table; None for no row.
        name: the name of the stage.
    """

    def __init__(self, norms: bool = False, row: str | None = None, name: str = 'zero') -> None:
        super().__init__(row, name)
        self.norms = check_flag(norms, 'norms', 'Zero')

    def forecast(self, before: Forecast) -> Forecast:
        before.check_not_fixed()
        before.check_masks('Zero')
        return replace(before, step=Step(zeroes=True))

    def run(self, state: PruningState) -> PruningState:
        """Set the filters to zero, save the weights, evaluate."""
        masks = state.load_masks()
        assert masks is not None, 'the forecast has checked that there are masks'
        runner = loaded_runner(state)
        graph = state.run.trace(runner.plain_model)
        masks.check(graph)
        zero(graph, masks, self.norms)
        state = with_weights(state, runner.plain_model)
        return with_row(state, self.row, runner, graph)

    def plan(self, state: PruningState) -> str:
        return 'set the filters of removed channels to zero' + (', and their norms' * self.norms)
