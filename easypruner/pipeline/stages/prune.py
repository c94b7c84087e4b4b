"""The stage Prune: the cut."""

from __future__ import annotations

from dataclasses import replace

from easypruner.base.checks import check_count, check_name, check_text
from easypruner.errors import ConfigError
from easypruner.graph import ChannelGraph
from easypruner.graph.graph import prune
from easypruner.graph.masks import Masks
from easypruner.pipeline.stages.common import (
    loaded_runner,
    stage_context,
    with_row,
    with_weights,
)
from easypruner.strategies import Stage
from easypruner.strategies.measures.compensation import mean_compensation
from easypruner.strategies.stages.forecast import Forecast, Step
from easypruner.strategies.stages.state import Cut, PruningState

_NO_MASKS = 'Prune has no masks to cut by; put a SelectMask or LoadMask stage before it'


class Prune(Stage):
    """Removes the channels that the masks do not keep.

    Args:
        row: name of the row that the result gets in the final table; None for no row.
        compensate: ``'mean'`` adds what the removed channels hold on average, times the weights
            that read it, to the biases behind (or takes it off the running mean of the batch norm
            there): a channel whose scale is zero still holds its bias. None adds nothing.
        batches: of training data, for these means.
        name: of the stage.
    """

    def __init__(
        self,
        row: str | None = 'pruned',
        compensate: str | None = None,
        batches: int = 50,
        name: str = 'prune',
    ) -> None:
        super().__init__(name)
        self.row = check_text(row, 'row', 'Prune')
        if compensate is not None:
            check_name(compensate, 'compensate', 'Prune', ('mean',))
        self.compensate = compensate
        self.batches = check_count(batches, 'batches', 'Prune')

    def forecast(self, before: Forecast) -> Forecast:
        before.check_not_fixed()
        if not before.masks:
            raise ConfigError(_NO_MASKS)
        return replace(before, masks=False, cut=True, step=Step(cuts=True))

    def run(self, state: PruningState) -> PruningState:
        """Cut, save the weights and the architecture record, evaluate."""
        file = state.masks
        if file is None:
            raise ConfigError(_NO_MASKS)
        runner = loaded_runner(state)
        model = runner.plain_model
        graph = state.run.trace(model)
        masks = Masks.load(file)
        masks.check(graph)
        if self.compensate is not None:
            state = self._compensated(state, graph, masks)
        record = prune(model, masks, graph=graph)
        # A run starts from a file of initial weights, so there are some before every cut.
        assert state.checkpoint is not None
        cut = Cut(
            checkpoint=state.checkpoint,
            masks=file,
            architecture=state.architecture,
            selected=state.selected,
        )
        state = with_weights(state.transformed(record), model)
        state = replace(state, masks=None, selected=None, cuts=(*state.cuts, cut))
        return with_row(state, self.row, runner, graph)

    def _compensated(self, state: PruningState, graph: ChannelGraph, masks: Masks) -> PruningState:
        """Make up for the means of what goes; return the state, warned of what could not be."""
        found = mean_compensation(graph, masks, stage_context(state), self.batches, 'Prune')
        found.apply()
        if not found.left:
            return state
        layers = ', '.join(found.left[:3]) + (', ...' if len(found.left) > 3 else '')
        return state.warned(
            f'{self.name}: not compensated, for want of a bias or a batch norm right behind what '
            'reads the removed channels, or because channels are mixed there: '
            f'{layers} ({len(found.left)} in all)'
        )

    def plan(self, state: PruningState) -> str:
        if self.compensate is None:
            return 'cut'
        return f'cut, and make up for the mean of what goes, from {self.batches} batches'
