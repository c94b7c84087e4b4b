"""The plan of a run, printed before it starts."""

from __future__ import annotations

from rich.console import Console

from easypruner.pipeline.preflight import Preflight
from easypruner.report.text import format_count, literal_text, make_table, print_lines
from easypruner.strategies.stages.forecast import pushes_last, unpruned_before
from easypruner.strategies.stages.state import PruningState


def print_plan(console: Console, state: PruningState, preflight: Preflight) -> None:
    """Print a description of each stage, the reach of its penalty, and warnings."""
    graph = preflight.graph
    cost = graph.cost()
    title = (
        f'{state.run.name}: {type(graph.model).__name__}, {format_count(cost.macs)} MACs, '
        f'{format_count(cost.params)} params, {len(graph.groups)} groups'
    )
    rows = []
    warnings = []
    for number, (planned, step) in enumerate(zip(preflight.stages, preflight.steps, strict=True)):
        stage, push = planned.stage, step.push
        reach = '' if push is None else push.reach
        rows.append((str(number), stage.name, stage.plan(state), reach))
        if push is not None:
            weak = push.weak if pushes_last(preflight.steps, number) else ''
            found = [*push.warnings, weak]
            warnings += [f'{stage.name}: {warning}' for warning in found if warning]
    console.print(literal_text(title), style='bold', soft_wrap=True)
    console.print(make_table('', ('', 'stage', 'does', 'reach'), rows, left=4))
    teacher = unpruned_before(preflight.steps, state.config.get('load_from') is not None)
    if teacher is not None and any(step.taught for step in preflight.steps):
        name = preflight.stages[teacher].stage.name
        console.print(f'teacher: the network before {literal_text(name)}', highlight=False)
    console.print(f'work directory: {literal_text(str(state.work_dir))}', highlight=False)
    print_lines(console, 'Warnings', warnings, style='yellow')
