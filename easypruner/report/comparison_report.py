"""The report of a comparison: a table on the console, and the files of its answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pluggy
from rich.console import Console
from rich.table import Table

from easypruner.errors import EasyPrunerError
from easypruner.report import text
from easypruner.report.answer import TITLES, Answer
from easypruner.report.answer_files import write_answer
from easypruner.report.artifacts import collect_artifacts
from easypruner.report.comparison import Comparison, Line, compare
from easypruner.report.differences import COLUMNS
from easypruner.report.fairness import list_differences

_NAMES = ('run', 'seed')
_ACCURACIES = ('baseline %', 'final %', 'change', 'after cut %', 'recalibrated %')
_COSTS = ('MACs', 'left', 'params', 'size', 'epochs', 'time')


def compare_runs(
    work_dirs: Sequence[str | Path],
    out: Path,
    *,
    overwrite: bool = False,
    reference: str | None = None,
    manager: pluggy.PluginManager | None = None,
    console: Console | None = None,
) -> Comparison:
    """Compare finished runs, print tables and write comparison.json, report.html and pictures.

    Args:
        work_dirs: the work directories of the runs.
        out: the folder to write; it is created if it does not exist.
        overwrite: whether to replace an earlier comparison in ``out``.
        reference: the method that the others are compared with; None for the first one.
        manager: the plugin manager, which collects artifacts; None for no artifacts.
        console: the console to print to; None for standard output.

    Raises:
        EasyPrunerError: a run is missing, unfinished or damaged, ``out`` is not empty, or no
            method is called ``reference``.
        PluginError: a plugin returned something other than artifacts.
    """
    comparison = compare(work_dirs)
    _check_folder(out, overwrite)
    notes = list_differences(comparison)
    artifacts = collect_artifacts(manager, comparison.runs)
    answer = Answer('Comparison', comparison, notes, artifacts=artifacts, reference=reference)
    written = write_answer(answer, out)
    print_answer(answer, written, console or text.report_console())
    return comparison


def print_answer(answer: Answer, written: Sequence[Path], console: Console) -> None:
    """Print the tables of an answer, what to know before comparing, and the paths of its files."""
    if answer.comparison.lines:
        console.print(*make_comparison_tables(answer.comparison, console.width))
    for name, differences in answer.differences().items():
        rows = [difference.cells() for difference in differences]
        console.print(text.make_table(f'Differences {TITLES[name]}', COLUMNS, rows, left=2))
    text.print_lines(console, 'Before you compare', answer.notes, style='yellow')
    text.print_artifacts(console, answer.artifacts)
    text.print_lines(console, 'Written', [str(path) for path in written])


def make_comparison_tables(comparison: Comparison, width: int) -> tuple[Table, ...]:
    """Return a comparison as one table, or as two tables if one is too wide.

    Each table has one line for each config, with mean ± standard deviation over the seeds. The two
    tables have accuracies and costs.

    Args:
        comparison: the comparison to show.
        width: the width of the output in characters.
    """
    rows = [
        ((line.name, text.format_numbers(line.seeds)), _accuracy_cells(line), _cost_cells(line))
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


def _accuracy_cells(line: Line) -> tuple[str, ...]:
    rare = [stat.text() if stat else '-' for stat in (line.after_cut, line.calibrated)]
    return line.baseline.text(), line.final.text(), line.change.text(text.format_change), *rare


def _cost_cells(line: Line) -> tuple[str, ...]:
    return (
        text.format_count(line.macs.mean),
        f'{line.macs_left.mean:.1f} %',
        text.format_count(line.params.mean),
        text.format_size(line.bytes.mean),
        f'{line.epochs.mean:g}' if line.epochs else '-',
        text.format_duration(line.seconds.mean),
    )


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
