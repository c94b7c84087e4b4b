"""The stages SelectMask and LoadMask: they decide which channels stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from easypruner.base.checks import check_path, is_number, refuse
from easypruner.graph import ChannelGraph, Masks
from easypruner.pipeline.stages.common import loaded_runner, stage_context
from easypruner.runtimes.off_grid import describe_off_grid, off_grid
from easypruner.runtimes.widths import Target
from easypruner.strategies import Context, MaskSource, Stage
from easypruner.strategies.budgets.budget import budget_result
from easypruner.strategies.measures.narrow import narrow_warning
from easypruner.strategies.stages.forecast import Forecast, Step
from easypruner.strategies.stages.state import PruningState

MASKS = 'masks.safetensors'


class SelectMask(Stage):
    """Lets a mask source choose the channels that stay.

    Use when:
        Always, unless a file has the masks. Put it after the training that a source relies on, and
        before ``Prune``, ``Zero`` or a regularizer that needs masks.

    Fails when:
        The budget cannot be met, or the source finds nothing to score; the plan reports most such
        errors before the run starts.

    Values:
        ``source=dict(type='L1Norm', budget=dict(type='Macs', keep=0.5))`` as a start. ``part`` is
        set by ``Iterative``.

    Args:
        source: the mask source, with its budget.
        part: in a run with several cuts, the progress towards the budget before and after this
            one, from 0 to 1.
        name: the name of the stage.
    """

    def __init__(
        self, source: MaskSource, part: Sequence[float] | None = None, name: str = 'select_mask'
    ) -> None:
        super().__init__(name)
        self.source = source
        if part is not None:
            _check_part(part)
            source.needed_budget()
        self.part = part
        self._budget = source.budget

    def check(self) -> None:
        self.source.check()

    def forecast(self, before: Forecast) -> Forecast:
        before.check_not_fixed()
        if not before.cut:
            self.source.dry_run(before.graph, Context(seed=before.seed))
        margin = partial(self.source.margin, context=Context(seed=before.seed))
        return replace(before, masks=True, step=Step(margin=margin))

    def run(self, state: PruningState) -> PruningState:
        """Select masks for the current weights."""
        runner = loaded_runner(state)
        graph = state.run.trace(runner.plain_model)
        state = self._with_partial_budget(state, graph)
        masks = self.source.select(graph, stage_context(state, runner))
        _check(masks, graph, state)
        budget = self.source.budget
        uncut = result = None
        if budget is not None:
            # A measured budget reports the spread of the last measurement.
            uncut = budget_result(budget, _all_kept(masks), graph)
            result = budget_result(budget, masks, graph)
        state = _with_width_warning(with_masks(state, masks, self), graph, masks, self)
        state = replace(state, selected=state.checkpoint)
        return replace(state, budget=result, uncut=uncut)

    def _with_partial_budget(self, state: PruningState, graph: ChannelGraph) -> PruningState:
        """Give the source the budget of this cut; return the state with the budget's reference."""
        if self.part is None or self._budget is None:
            return state
        done, share = self.part
        if done == 0:
            state = replace(state, reference=self._budget.reference(graph))
        self.source.budget = self._budget.partial(done, share, state.reference)
        return state

    def plan(self, state: PruningState) -> str:
        budgets = self._budget.parts() if self._budget is not None else ()
        limits = ' and '.join(f'{budget.kind} {budget.asked:g}' for budget in budgets)
        limit = f', budget {limits}' if limits else ''
        part = f', from {self.part[0]:.0%} to {self.part[1]:.0%} of it' if self.part else ''
        return f'select masks by {type(self.source).__name__}{limit}{part}'


class LoadMask(Stage):
    """Reads masks from a file, such as masks.safetensors of another run.

    Use when:
        The masks of another run are to be cut, or two trainings are compared with the same masks.
        For masks of other code, by layer names, use ``SelectMask`` with the source ``MaskFile``.

    Fails when:
        The masks do not fit the current network; the error names the group.

    Values:
        The path of ``masks.safetensors`` in a work directory.

    Args:
        path: the path of a safetensors file: group name -> bool tensor, True = keep.
        name: the name of the stage.
    """

    def __init__(self, path: str, name: str = 'load_mask') -> None:
        super().__init__(name)
        self.path = check_path(path, 'path', 'LoadMask')

    def check(self) -> None:
        Masks.load(self.path)

    def forecast(self, before: Forecast) -> Forecast:
        before.check_not_fixed()
        if not before.cut:
            Masks.load(self.path).check(before.graph)
        return replace(before, masks=True)

    def run(self, state: PruningState) -> PruningState:
        """Check the masks against the network, and copy them into the run."""
        masks = Masks.load(self.path)
        _check(masks, state.run.trace(loaded_runner(state).plain_model), state)
        return replace(with_masks(state, masks, self), selected=None, budget=None, uncut=None)

    def plan(self, state: PruningState) -> str:
        return f'load masks from {self.path}'


def _check_part(part: Any) -> None:
    shares = list(part) if isinstance(part, list | tuple) else []
    if len(shares) != 2 or not all(map(is_number, shares)) or not 0 <= shares[0] < shares[1] <= 1:
        expected = 'the progress before and after this cut, from 0 to 1, as in (0.25, 0.5)'
        refuse(part, 'part', 'SelectMask', expected)


def with_masks(state: PruningState, masks: Masks, stage: Stage) -> PruningState:
    """Write masks to a stage's folder; return the state with their path, and with warnings."""
    for warning in filter(None, (narrow_warning(masks), _nothing_removed(masks))):
        state = state.warned(f'{stage.name}: {warning}')
    return replace(state, masks=state.write(MASKS, masks.save))


def _all_kept(masks: Masks) -> Masks:
    """Return masks of the same groups that remove nothing."""
    return Masks({name: torch.ones_like(mask) for name, mask in masks.items()})


def _nothing_removed(masks: Masks) -> str:
    """Return a warning if masks keep everything, or ''."""
    if masks.removed_units:
        return ''
    return (
        'the masks remove nothing, so a cut changes nothing: the budget allows all channels, or '
        'no score is below its threshold; use a stricter budget, or a regularizer with a higher '
        'strength before this stage'
    )


def _check(masks: Masks, graph: ChannelGraph, state: PruningState) -> None:
    """Check masks now that a later stage will cut by them: until then the run may train for long.

    Raises:
        MaskError: they do not fit, or the network could not be cut by them.
    """
    if any(step.cuts for step in state.run.steps[state.index + 1 :]):
        graph.check_cut(masks)
    else:
        masks.check(graph)


def _with_width_warning(
    state: PruningState, graph: ChannelGraph, masks: Masks, stage: Stage
) -> PruningState:
    """Return the state, with a warning if masks leave widths off the grid of the target."""
    if not isinstance(graph.target, Target):
        return state
    warning = describe_off_grid(off_grid(graph, masks, graph.target.runtime))
    return state.warned(f'{stage.name}: {graph.target.name}, {warning}') if warning else state
