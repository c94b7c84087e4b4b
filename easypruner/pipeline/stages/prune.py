"""The stages Prune, Zero and Calibrate: they change the network without training it."""

from __future__ import annotations

from dataclasses import replace

import torch

from easypruner.base.checks import check_count, check_flag, check_name
from easypruner.base.distributed import average_buffers
from easypruner.graph import ChannelGraph, Masks
from easypruner.graph.pruning import prune
from easypruner.pipeline.stages.common import loaded_runner, stage_context, with_row, with_weights
from easypruner.report.result import Row
from easypruner.strategies.measures.calibration import calibrate
from easypruner.strategies.measures.compensation import mean_compensation
from easypruner.strategies.measures.zeroing import zero
from easypruner.strategies.stages.forecast import Forecast, Step
from easypruner.strategies.stages.stage import RowStage
from easypruner.strategies.stages.state import Cut, PruningState

_COLLAPSE = 0.5
"""The share of the accuracy that a cut should leave, before any calibration or training."""


class Prune(RowStage):
    """Removes the channels that the masks do not keep.

    Parameters, buffers and the numbers of layers change, and the architecture record of the cut is
    written. The optimizer of the next ``Train`` stage starts anew.

    Use when:
        Masks are selected and the network should become smaller. ``Zero`` tests the same masks
        without a cut.

    Fails when:
        A layer without a bias or a batch norm behind it reads removed channels, or an operation
        mixes them, such as a layer norm: the means of these channels cannot be compensated. A
        warning names them.

    Values:
        ``compensate='mean'``, the default: a channel whose scale was pushed to zero still
        contributes its bias, and others contribute their means. 50 ``batches`` are enough for the
        means. ``compensate=None`` where the cut has to be that of a paper.

    Args:
        row: the name of the result's row in the final table; None for no row.
        compensate: ``'mean'`` adds the mean of each removed channel, times the weights that read
            it, to the bias of the following layer, or subtracts it from the running mean of the
            following batch norm. None adds nothing.
        batches: the number of batches of training data for these means.
        name: the name of the stage.
    """

    def __init__(
        self,
        row: str | None = 'pruned',
        compensate: str | None = 'mean',
        batches: int = 50,
        name: str = 'prune',
    ) -> None:
        super().__init__(row, name)
        if compensate is not None:
            check_name(compensate, 'compensate', 'Prune', ('mean',))
        self.compensate = compensate
        self.batches = check_count(batches, 'batches', 'Prune')

    def forecast(self, before: Forecast) -> Forecast:
        before.check_not_fixed()
        before.check_masks('Prune')
        return replace(before, masks=False, cut=True, step=Step(cuts=True))

    def run(self, state: PruningState) -> PruningState:
        """Cut, save the weights and the architecture record, evaluate."""
        runner = loaded_runner(state)
        model = runner.plain_model
        graph = state.run.trace(model)
        file, checkpoint = state.masks, state.checkpoint
        assert file is not None, 'the forecast has checked that there are masks'
        assert checkpoint is not None, 'a run starts with a file of initial weights'
        masks = Masks.load(file)
        masks.check(graph)
        if self.compensate is not None:
            state = self._compensated(state, graph, masks)
        record = prune(model, masks, graph=graph)
        cut = Cut(checkpoint, file, state.architecture, state.selected)
        state = with_weights(state.transformed(record), model)
        state = replace(state, masks=None, selected=None, cuts=(*state.cuts, cut))
        after = with_row(replace(state, uncut=None), self.row, runner, graph)
        if state.rows and self.row is not None:
            warning = collapse_warning(state.rows[-1], after.rows[-1])
            after = after.warned(f'{self.name}: {warning}') if warning else after
        return after

    def _compensated(self, state: PruningState, graph: ChannelGraph, masks: Masks) -> PruningState:
        """Compensate the means of removed channels; return the state, with a warning if needed."""
        found = mean_compensation(graph, masks, stage_context(state), self.batches, 'Prune')
        found.apply()
        if not found.left:
            return state
        layers = ', '.join(found.left[:3]) + (', ...' if len(found.left) > 3 else '')
        return state.warned(
            f'{self.name}: not compensated, because the layers that read the removed channels have '
            'neither a bias nor a batch norm behind them, or because an operation mixes the '
            f'channels: {layers} ({len(found.left)} in all)'
        )

    def plan(self, state: PruningState) -> str:
        if self.compensate is None:
            return 'cut'
        return f'cut, and compensate the means of removed channels, from {self.batches} batches'


class Zero(RowStage):
    """Sets the filters of the channels that masks remove to zero, without a cut.

    In soft filter pruning (He et al., 2018, arXiv 1808.06866), this happens after every epoch. The
    filters are trained further, and a channel that has become large again is kept next time. The
    masks stay selected, so that a ``Prune`` may follow.

    As in the paper, only filters are set to zero. Such a channel still has the constant that its
    norm or bias adds. If that was zero as well, no gradient would pass a ReLU behind it, and the
    channel could not return. ``Prune`` compensates such constants.

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
        context = stage_context(state)
        batches = context.some_batches(self.batches, 'Calibrate')
        torch.manual_seed(state.run.seed)
        calibrate(model, batches, context.needed('forward', 'Calibrate'))
        average_buffers(model)
        state = with_weights(state, model)
        return with_row(state, self.row, runner, state.run.trace(model))

    def plan(self, state: PruningState) -> str:
        return f'recalibrate batch norm on {self.batches} batches'


def collapse_warning(before: Row, after: Row) -> str:
    """Return a warning if a cut has taken most of the accuracy, or ''.

    Args:
        before: the last row before the cut.
        after: the row right after the cut.
    """
    if after.accuracy >= _COLLAPSE * before.accuracy:
        return ''
    return (
        f'the accuracy fell from {before.accuracy:.2f} % ({before.name}) to {after.accuracy:.2f} % '
        'by the cut; recalibrate batch norm (Calibrate), train afterwards, remove less at once '
        '(Iterative), or push the channels to zero before the cut'
    )
