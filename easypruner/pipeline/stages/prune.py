"""The stage Prune: the cut."""

from __future__ import annotations

from dataclasses import replace

from easypruner.contracts import Stage
from easypruner.engine.distributed import barrier, is_main
from easypruner.errors import ConfigError
from easypruner.graph import ArchitectureRecord, prune
from easypruner.masks import Masks
from easypruner.pipeline.outlook import Outlook
from easypruner.pipeline.stages.common import loaded_runner, with_row, with_weights
from easypruner.pipeline.state import Cut, PruningState

ARCHITECTURE = 'architecture.json'
_NO_MASKS = 'Prune has no masks to cut by; put a SelectMask or LoadMask stage before it'


class Prune(Stage):
    """Removes the channels that the masks do not keep.

    Args:
        row: name of the row that the result gets in the final table; None for no row.
        name: of the stage.
    """

    def __init__(self, row: str | None = 'pruned', name: str = 'prune') -> None:
        super().__init__(name)
        self.row = row

    def foresee(self, outlook: Outlook) -> Outlook:
        if not outlook.masks:
            raise ConfigError(_NO_MASKS)
        return replace(outlook, masks=False, cut=True)

    def run(self, state: PruningState) -> PruningState:
        """Cut, save the weights and the architecture record, evaluate."""
        if state.masks is None:
            raise ConfigError(_NO_MASKS)
        runner = loaded_runner(state)
        model = runner.plain_model
        graph = state.run.trace(model)
        masks = state.load_masks() or Masks()
        record = prune(model, masks, graph=graph)
        if state.architecture is not None:
            record = ArchitectureRecord.load(state.architecture).then(record)
        path = state.stage / ARCHITECTURE
        if is_main():
            record.save(path)
        barrier()
        # A run starts from a file of initial weights, so there are some before every cut.
        assert state.checkpoint is not None
        cut = Cut(
            checkpoint=state.checkpoint,
            masks=state.masks,
            architecture=state.architecture,
            selected=state.selected,
        )
        state = with_weights(state, model)
        state = replace(state, architecture=path, masks=None, selected=None, cut=cut)
        return with_row(state, self.row, runner, graph)

    def plan(self, state: PruningState) -> str:
        return 'cut'
