"""The report of a comparison: a table, a picture and comparison.json."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pluggy
from rich.console import Console
from rich.table import Table

from easypruner.base.files import write_json
from easypruner.errors import EasyPrunerError
from easypruner.report import text
from easypruner.report.artifacts import collect_artifacts
from easypruner.report.comparison import Comparison, Line, compare
from easypruner.report.fairness import list_differences
from easypruner.report.result import Row

PICTURE = 'accuracy_macs.png'
RECORD = 'comparison.json'

_NAMES = ('run', 'seed')
_ACCURACIES = ('baseline %', 'final %', 'change', 'after cut %')
_COSTS = ('MACs', 'left', 'params', 'size', 'time')
_QUANTITIES = ('baseline', 'final', 'change', 'after_cut', 'macs', 'macs_left', 'params', 'bytes',
               'seconds')  # fmt: skip
"""The names in comparison.json, which are those of the properties of a line."""


def compare_runs(
    work_dirs: Sequence[str | Path],
    out: Path,
    *,
    overwrite: bool = False,
    manager: pluggy.PluginManager | None = None,
    console: Console | None = None,
) -> Comparison:
    """Compare finished runs, print the table and write the picture and comparison.json.

    Args:
        work_dirs: the work directories of the runs.
        out: the folder to write; it is created if it does not exist.
        overwrite: whether to replace an earlier comparison in ``out``.
        manager: the plugin manager, which collects artifacts; None for no artifacts.
        console: the console to print to; None for standard output.

    Raises:
        EasyPrunerError: a run is missing, unfinished or damaged, or ``out`` is not empty.
        PluginError: a plugin returned something other than artifacts.
    """
    comparison = compare(work_dirs)
    _check_folder(out, overwrite)
    notes = list_differences(comparison)
    artifacts = collect_artifacts(manager, comparison.runs)
    _draw(comparison, out / PICTURE)
    write_json(out / RECORD, make_comparison_record(comparison, notes))
    console = console or text.report_console()
    console.print(*make_comparison_tables(comparison, console.width))
    text.print_lines(console, 'Before you compare', notes, style='yellow')
    text.print_artifacts(console, artifacts)
    text.print_lines(console, 'Written', [str(out / PICTURE), str(out / RECORD)])
    return comparison


def make_comparison_tables(comparison: Comparison, width: int) -> tuple[Table, ...]:
    """Return a comparison as one table, or as two tables if one is too wide.

    Each table has one line for each config, with mean ± standard deviation over the seeds. The two
    tables have accuracies and costs.

    Args:
        comparison: the comparison to show.
        width: the width of the output in characters.
    """
    rows = [
        ((line.name, ', '.join(map(str, line.seeds))), _accuracy_cells(line), _cost_cells(line))
        for line in comparison.lines
    ]
    columns = (*_NAMES, *_ACCURACIES, *_COSTS)
    whole = text.make_table('Comparison', columns, [(*names, *a, *c) for names, a, c in rows])
    if text.natural_width(whole) <= width:
        return (whole,)
    accuracies = [(*names, *cells) for names, cells, _ in rows]
    costs = [(names[0], *cells) for names, _, cells in rows]
    return (
        text.make_table('Accuracy', (*_NAMES, *_ACCURACIES), accuracies),
        text.make_table('Cost', (_NAMES[0], *_COSTS), costs),
    )


def make_comparison_record(comparison: Comparison, notes: Sequence[str]) -> dict[str, Any]:
    """Return the content of comparison.json. Accuracies are in percent."""
    return {
        'lines': [_line_record(line) for line in comparison.lines],
        'notes': list(notes),
        'picture': PICTURE,
    }


def _accuracy_cells(line: Line) -> tuple[str, ...]:
    after_cut = line.after_cut.text() if line.after_cut else '-'
    return line.baseline.text(), line.final.text(), line.change.text(text.format_change), after_cut


def _cost_cells(line: Line) -> tuple[str, ...]:
    return (
        text.format_count(line.macs.mean),
        f'{line.macs_left.mean:.1f} %',
        text.format_count(line.params.mean),
        text.format_size(line.bytes.mean),
        text.format_duration(line.seconds.mean),
    )


def _line_record(line: Line) -> dict[str, Any]:
    quantities = {name: getattr(line, name) for name in _QUANTITIES}
    return {
        'name': line.name,
        'config_hash': line.runs[0].config_hash,
        'seeds': list(line.seeds),
        'work_dirs': [str(run.work_dir) for run in line.runs],
        **{name: stat and dataclasses.asdict(stat) for name, stat in quantities.items()},
    }


def _check_folder(out: Path, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise EasyPrunerError(
            f'{str(out)!r} is a file; choose a folder for the comparison with --out'
        )
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise EasyPrunerError(
            f'the folder {str(out)!r} is not empty; choose another with --out, or replace an '
            'earlier comparison with --overwrite'
        )


def _draw(comparison: Comparison, path: Path) -> None:
    # matplotlib takes half a second to import, and errors should be reported before that.
    from easypruner.report.plots import Point, draw_accuracy, save_figure

    def point(name: str, rows: Sequence[Row]) -> Point:
        return Point(name, tuple(row.macs for row in rows), tuple(row.accuracy for row in rows))

    baselines = point('baseline', [run.baseline for run in comparison.runs])
    points = [point(line.name, [run.final for run in line.runs]) for line in comparison.lines]
    save_figure(draw_accuracy(points, baselines), path)
