"""The plan: what a run will do, printed before it starts."""

from __future__ import annotations

import torch
from rich.console import Console

from easypruner.engine.hooks import weak_reach
from easypruner.masks import Masks
from easypruner.pipeline.preflight import Preflight
from easypruner.pipeline.stages.train import Train, pushes_last
from easypruner.pipeline.state import PruningState
from easypruner.report.text import count, literal, make_table, print_lines


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
            reach, warning = _reach(stage, state, preflight)
            if warning and pushes_last(state.config.stages, number):
                warnings.append(f'{stage.name}: {warning}')
        rows.append((str(number), stage.name, stage.plan(state), reach))
    console.print(make_table(title, ('', 'stage', 'does', 'reach'), rows, left=4))
    console.print(f'work directory: {literal(str(state.work_dir))}', highlight=False)
    print_lines(console, 'Warnings', warnings, style='yellow')


def _reach(stage: Train, state: PruningState, preflight: Preflight) -> tuple[str, str]:
    """Return how far the penalty alone can move a scale, and a warning if that is not enough."""
    assert stage.regularizer is not None
    schedule = stage.schedule(state.config, preflight.epoch_length)
    stage.regularizer.schedule(schedule)
    every_unit = Masks(
        {
            name: torch.zeros(group.size, dtype=torch.bool)
            for name, group in preflight.graph.groups.items()
        }
    )
    warning = weak_reach(stage.regularizer, schedule, preflight.graph, every_unit)
    reach = stage.regularizer.reach(schedule)
    return f'{reach:.2g} (strength {stage.regularizer.strength:.2g})', warning
