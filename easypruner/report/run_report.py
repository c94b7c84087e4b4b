"""The report of one run: summary.json, pictures, and the table at the end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from easypruner.report.artifacts import collect_artifacts
from easypruner.report.result import BudgetResult, Row, RunResult
from easypruner.report.text import (
    amount,
    change,
    count,
    duration,
    make_table,
    print_artifacts,
    print_lines,
    report_console,
    share,
    size,
)

if TYPE_CHECKING:
    import pluggy
    from rich.console import Console
    from rich.table import Table

    from easypruner.report.scales import LayerChannels, Scales

SCALES_PICTURE = 'scales.png'
CHANNELS_PICTURE = 'channels.png'


def report_run(
    result: RunResult,
    *,
    scales: tuple[Scales, Scales] | None = None,
    layers: Sequence[LayerChannels] = (),
    files: Sequence[Path] = (),
    manager: pluggy.PluginManager | None = None,
    console: Console | None = None,
) -> tuple[Path, ...]:
    """Write the report of a run into its work directory and print it.

    Args:
        result: the run.
        scales: batch-norm scales before and after the sparsity stage, for ``scales.png``.
        layers: channels per layer, for ``channels.png``.
        files: what the run wrote already; listed with what the report writes.
        manager: asks the plugins for their artifacts.
        console: where to print; standard output by default.

    Returns:
        the paths the report wrote; summary.json is written last, when all else is done.

    Raises:
        PluginError: a plugin returned something else than artifacts.
    """
    pictures = _draw(result.work_dir, scales, layers)
    artifacts = collect_artifacts(manager, [result])
    written = (*pictures, result.save())
    console = console or report_console()
    console.print(run_table(result))
    print_lines(console, 'Facts', _facts(result))
    print_artifacts(console, artifacts)
    print_lines(console, 'Warnings', result.warnings, style='yellow')
    print_lines(console, 'Written', [str(path) for path in (*files, *written)])
    return written


def run_table(result: RunResult) -> Table:
    """Return the table of a run: a line for each of its rows, with the change to the baseline."""
    baseline = result.baseline
    return make_table(
        result.name,
        ('', 'accuracy', 'change', 'MACs', 'left', 'params', 'left', 'size', 'left'),
        [_cells(row, baseline) for row in result.rows],
    )


def _cells(row: Row, baseline: Row) -> tuple[str, ...]:
    return (
        row.name,
        f'{row.accuracy:.2f} %',
        '' if row is baseline else change(row.accuracy - baseline.accuracy),
        count(row.macs),
        share(row.macs, baseline.macs),
        count(row.params),
        share(row.params, baseline.params),
        size(row.bytes),
        share(row.bytes, baseline.bytes),
    )


def _facts(result: RunResult) -> list[str]:
    facts = []
    if result.budget is not None:
        facts += [_budget_fact(budget) for budget in result.budget.each]
    if result.cut is not None:
        before, after = result.cut
        facts.append(
            f'accuracy before the cut {before.accuracy:.2f} % ({before.name}), '
            f'right after it {after.accuracy:.2f} % ({change(after.accuracy - before.accuracy)})'
        )
    if result.scales is not None:
        scales = result.scales
        facts.append(
            f'removed batch-norm scales ({scales.count}): median {scales.median:.1e}, '
            f'99th percentile {scales.p99:.1e}, largest {scales.largest:.1e}'
        )
    if result.seconds:
        longest = max(result.seconds, key=lambda stage: result.seconds[stage])
        facts.append(
            f'time: {duration(sum(result.seconds.values()))}, '
            f'of it {longest} {duration(result.seconds[longest])}; seed {result.seed}'
        )
    return facts


def _budget_fact(budget: BudgetResult) -> str:
    spread = '' if budget.spread is None else f' ± {amount(budget.spread)}'
    return (
        f'budget {budget.kind}: asked {amount(budget.asked)}, '
        f'delivered {amount(budget.delivered)}{spread}'
    )


def _draw(
    work_dir: Path, scales: tuple[Scales, Scales] | None, layers: Sequence[LayerChannels]
) -> tuple[Path, ...]:
    # matplotlib takes half a second to import: only where something is drawn.
    from easypruner.report.plots import channels_figure, save_figure, scales_figure

    written = []
    if scales is not None:
        written.append(work_dir / SCALES_PICTURE)
        save_figure(scales_figure(*scales), written[-1])
    if layers:
        written.append(work_dir / CHANNELS_PICTURE)
        save_figure(channels_figure(layers), written[-1])
    return tuple(written)
