"""The report of one run: summary.json, pictures and a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pluggy
from rich.console import Console
from rich.table import Table

from easypruner.report import text
from easypruner.report.artifacts import collect_artifacts
from easypruner.report.result import Artifact, NetworkCost, Row, RunResult
from easypruner.report.scales import LayerChannels, Scales
from easypruner.report.times import RunTimes

SCALES_PICTURE = 'scales.png'
CHANNELS_PICTURE = 'channels.png'


def report_run(
    result: RunResult,
    *,
    scales: tuple[Scales, Scales] | None = None,
    layers: Sequence[LayerChannels] = (),
    times: RunTimes | None = None,
    files: Sequence[Path] = (),
    manager: pluggy.PluginManager | None = None,
    console: Console | None = None,
) -> tuple[Path, ...]:
    """Write the report of a run into its work directory and print it.

    Args:
        result: the result of the run.
        scales: batch-norm scales before and after the sparsity stage, for ``scales.png``.
        layers: channels of each layer, for ``channels.png``.
        times: the times of the networks in runtimes, for ``times.json``; None for none.
        files: files that the run has already written, to be listed as well.
        manager: the plugin manager, which collects artifacts; None for no artifacts.
        console: the console to print to; None for standard output.

    Returns:
        the paths of the written files. summary.json is written last, after everything else.

    Raises:
        PluginError: a plugin returned something other than artifacts.
    """
    pictures = _draw(result.work_dir, scales, layers)
    artifacts = collect_artifacts(manager, [result])
    timed = () if times is None else (times.save(result.work_dir),)
    written = (*pictures, *timed, result.save())
    console = console or text.report_console()
    _print(result, times or RunTimes(), artifacts, console)
    text.print_lines(console, 'Written', [str(path) for path in (*files, *written)])
    return written


def print_run(result: RunResult, manager: pluggy.PluginManager, console: Console) -> None:
    """Print the table of a finished run again, with its facts, artifacts and warnings."""
    times = RunTimes.load(result.work_dir)
    _print(result, times, collect_artifacts(manager, [result]), console)


def _print(
    result: RunResult, times: RunTimes, artifacts: Sequence[Artifact], console: Console
) -> None:
    table = make_run_table(result, times)
    if text.natural_width(table) <= console.width:
        console.print(table)
    else:
        console.print(make_run_table(result))
        console.print(_make_times_table(result, times))
    text.print_lines(console, 'Facts', [*_facts(result), *times.facts])
    text.print_artifacts(console, artifacts)
    text.print_lines(console, 'Warnings', [*result.warnings, *times.warnings], style='yellow')


def make_run_table(result: RunResult, times: RunTimes | None = None) -> Table:
    """Return the table of a run, with the change from the baseline for each row.

    Args:
        result: the run.
        times: the times of its networks, for more columns.
    """
    baseline, whole = result.baseline, result.whole
    times = times or RunTimes()
    headings = ('', 'accuracy', 'change', 'MACs', 'left', 'params', 'left', 'size', 'left')
    rows = zip(result.rows, times.cells(result), strict=True)
    return text.make_table(
        result.name,
        (*headings, *times.columns()),
        [(*_cells(row, baseline, whole), *cells) for row, cells in rows],
    )


def _make_times_table(result: RunResult, times: RunTimes) -> Table:
    """Return the columns of the times alone, for a narrow console."""
    rows = zip(result.rows, times.cells(result), strict=True)
    cells = [(row.name, *cells) for row, cells in rows]
    return text.make_table('time of a pass', ('', *times.columns()), cells)


def _cells(row: Row, baseline: Row, whole: NetworkCost) -> tuple[str, ...]:
    return (
        row.name,
        f'{row.accuracy:.2f} %',
        '' if row is baseline else text.format_change(row.accuracy - baseline.accuracy),
        text.format_count(row.macs),
        text.format_share(row.macs, whole.macs),
        text.format_count(row.params),
        text.format_share(row.params, whole.params),
        text.format_size(row.bytes),
        text.format_share(row.bytes, whole.bytes),
    )


def _facts(result: RunResult) -> list[str]:
    facts = []
    if result.budget is not None:
        facts += [text.describe_budget(budget) for budget in result.budget.each]
    if result.cut is not None:
        before, after = result.cut
        change = text.format_change(after.accuracy - before.accuracy)
        facts.append(
            f'accuracy before the cut {before.accuracy:.2f} % ({before.name}), '
            f'right after it {after.accuracy:.2f} % ({change})'
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
            f'time: {text.format_duration(sum(result.seconds.values()))}, '
            f'longest stage: {longest} {text.format_duration(result.seconds[longest])}; '
            f'seed {result.seed}'
        )
    return facts


def _draw(
    work_dir: Path, scales: tuple[Scales, Scales] | None, layers: Sequence[LayerChannels]
) -> tuple[Path, ...]:
    # matplotlib takes half a second to import, and only pictures need it.
    from easypruner.report.plots import draw_channels, draw_scales, save_figure

    written = []
    if scales is not None:
        written.append(work_dir / SCALES_PICTURE)
        save_figure(draw_scales(*scales), written[-1])
    if layers:
        written.append(work_dir / CHANNELS_PICTURE)
        save_figure(draw_channels(layers), written[-1])
    return tuple(written)
