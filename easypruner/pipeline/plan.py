"""The plan: what a run will do, printed before it starts."""

from __future__ import annotations

from rich.console import Console

from easypruner.engine.hooks import weak_reach
from easypruner.pipeline.preflight import Preflight
from easypruner.pipeline.stages.distill import Distill
from easypruner.pipeline.stages.train import Train, pushes_last
from easypruner.pipeline.teacher import unpruned_before
from easypruner.report.text import count, literal, make_table, print_lines
from easypruner.strategies import Stage
from easypruner.strategies.stages.forecast import removing_everything
from easypruner.strategies.stages.state import PruningState


def print_plan(console: Console, state: PruningState, preflight: Preflight) -> None:
    """Print the stages, with their epochs, budgets, and the reach of every sparsity stage."""
    graph = preflight.graph
    cost = graph.cost()
    title = (
        f'{state.run.name}: {type(graph.model).__name__}, {count(cost.macs)} MACs, '
        f'{count(cost.params)} params, {len(graph.groups)} groups'
    )
    rows = []
    warnings = []
    for number, stage in enumerate(preflight.stages):
        reach = ''
        if isinstance(stage, Train) and stage.regularizer is not None:
            reach, weak, lag = _reach(stage, state, preflight)
            found = [lag, weak] if pushes_last(state.config.stages, number) else [lag]
            warnings += [f'{stage.name}: {warning}' for warning in found if warning]
        rows.append((str(number), stage.name, stage.plan(state), reach))
    console.print(literal(title), style='bold', soft_wrap=True)
    console.print(make_table('', ('', 'stage', 'does', 'reach'), rows, left=4))
    teacher = unpruned_before(preflight.stages, state.config)
    if teacher is not None and any(_is_taught(stage) for stage in preflight.stages):
        name = preflight.stages[teacher].name
        console.print(f'teacher: the network before {literal(name)}', highlight=False)
    console.print(f'work directory: {literal(str(state.work_dir))}', highlight=False)
    print_lines(console, 'Warnings', warnings, style='yellow')


def _is_taught(stage: Stage) -> bool:
    """Tell whether a stage is taught by the unpruned network of the run itself."""
    return isinstance(stage, Distill) and stage.teacher is None


def _reach(stage: Train, state: PruningState, preflight: Preflight) -> tuple[str, str, str]:
    """Return how far the penalty alone can move a scale, and warnings of what is in its way."""
    assert stage.regularizer is not None
    schedule = stage.schedule(state.config, preflight.epoch_length)
    stage.regularizer.schedule(schedule)
    graph = preflight.graph
    warning = weak_reach(stage.regularizer, schedule, graph, removing_everything(graph))
    reach = stage.regularizer.reach(schedule)
    text = f'{reach:.2g} (strength {stage.regularizer.strength:.2g})'
    return text, warning, stage.lag(schedule)
