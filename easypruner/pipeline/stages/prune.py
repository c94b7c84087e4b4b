"""The stage Prune: cuts the network."""

from __future__ import annotations

from dataclasses import replace

from easypruner.base.checks import check_count, check_name
from easypruner.graph import ChannelGraph
from easypruner.graph.graph import prune
from easypruner.graph.masks import Masks
from easypruner.pipeline.stages.common import loaded_runner, stage_context, with_row, with_weights
from easypruner.strategies.measures.compensation import mean_compensation
from easypruner.strategies.stages.forecast import Forecast, Step
from easypruner.strategies.stages.stage import RowStage
from easypruner.strategies.stages.state import Cut, PruningState


class Prune(RowStage):
    """Removes the channels that the masks do not keep.

    Parameters, buffers and the numbers of layers change, and the architecture record of the cut is
    written. The optimizer of the next ``Train`` stage starts anew.

    Use when:
        Masks are selected and the network should become smaller. ``Zero`` tests the same masks
        without a cut.

    Fails when:
        ``compensate='mean'`` cannot compensate a layer without a bias or a batch norm behind it, or
        channels that an operation mixes, such as a layer norm; a warning names them.

    Values:
        ``compensate='mean'`` if no training follows, or if scales were pushed to zero: a channel
        with scale 0 still contributes its bias. 50 ``batches`` are enough for the means.

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
        compensate: str | None = None,
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
        cut = Cut(
            checkpoint=checkpoint,
            masks=file,
            architecture=state.architecture,
            selected=state.selected,
        )
        state = with_weights(state.transformed(record), model)
        state = replace(state, masks=None, selected=None, cuts=(*state.cuts, cut))
        return with_row(state, self.row, runner, graph)

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
