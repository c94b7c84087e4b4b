"""The answer of a comparison: what is known about its methods, as records and cells of tables."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from easypruner.report import text
from easypruner.report.comparison import Comparison, Line, Stat
from easypruner.report.differences import QUANTITIES, Difference, find_differences
from easypruner.report.result import Artifact
from easypruner.report.stage_files import read_stages

PICTURE = 'accuracy_macs.png'
NUMBERS = ('baseline', 'final', 'change', 'after_cut', 'calibrated', 'macs', 'macs_left', 'params',
           'bytes', 'epochs', 'seconds')  # fmt: skip
"""The names in comparison.json, which are those of the properties of a line."""
TITLES = {'final': 'at the end', 'calibrated': 'after the cut, batch norms recalibrated'}
_COLUMNS = ('method', 'budget', 'seeds', 'baseline %', 'final %', 'change', 'recalibrated %',
                  'after cut %', 'MACs left', 'params', 'epochs', 'time')  # fmt: skip
_READING = (
    'Accuracies are means ± standard deviations over the seeds. The time of a method has the '
    'stages that it shares with others.'
)


@dataclass(frozen=True)
class MissingRun:
    """A run of a study that has no result.

    Attributes:
        name: its method, seed and budget.
        status: how far it came, such as 'failed'.
        reason: why there is no result.
    """

    name: str
    status: str
    reason: str


@dataclass(frozen=True)
class Answer:
    """What is written about compared runs.

    Attributes:
        title: the title of the page.
        comparison: the runs with results.
        notes: what makes the comparison unfair.
        missing: the runs without results.
        artifacts: tables and pictures of plugins.
        reference: the name of the method that the others are compared with; None for the first.
    """

    title: str
    comparison: Comparison
    notes: tuple[str, ...] = ()
    missing: tuple[MissingRun, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    reference: str | None = None

    def differences(self) -> dict[str, list[Difference]]:
        """Return the differences from the reference, for each accuracy that is known."""
        found = {
            name: find_differences(self.comparison, name, self.reference) for name in QUANTITIES
        }
        return {name: differences for name, differences in found.items() if differences}


def answer_record(
    answer: Answer, differences: dict[str, list[Difference]], pictures: Sequence[Path] = ()
) -> dict[str, Any]:
    """Return the content of comparison.json. Accuracies are in percent."""
    spent, shared = spent_seconds(answer.comparison)
    return {
        'lines': [_line_record(line) for line in answer.comparison.lines],
        'notes': list(answer.notes),
        'picture': PICTURE,
        'pictures': [path.name for path in pictures],
        'differences': [d.record() for found in differences.values() for d in found],
        'missing': [dataclasses.asdict(run) for run in answer.missing],
        'seconds': {'spent': spent, 'shared': shared},
    }


def spent_seconds(comparison: Comparison) -> tuple[float, float]:
    """Return the time that all runs took, and what shared stages would have taken again."""
    separately = sum(sum(run.seconds.values()) for run in comparison.runs)
    # A stage that was trained twice has the same hash, and never the same time.
    seen: set[tuple[str, float]] = set()
    shared = 0.0
    for run in comparison.runs:
        for stage in read_stages(run.work_dir):
            if (stage.identity, stage.seconds) in seen:
                shared += stage.seconds
            seen.add((stage.identity, stage.seconds))
    return max(0.0, separately - shared), shared


def _line_record(line: Line) -> dict[str, Any]:
    quantities = {name: getattr(line, name) for name in NUMBERS}
    return {
        'name': line.name,
        'group': line.group,
        'config_hash': line.runs[0].config_hash,
        'seeds': list(line.seeds),
        'work_dirs': [str(run.work_dir) for run in line.runs],
        **{name: stat and dataclasses.asdict(stat) for name, stat in quantities.items()},
    }


def methods_table(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Return the columns of a table of methods, and the cells of each row.

    There is no column of budgets if the names of the methods have them.
    """

    def maybe(stat: Stat | None, show: Callable[[float], str] = '{:.2f}'.format) -> str:
        return stat.text(show) if stat else '-'

    rows = [
        (
            line.name,
            line.group,
            text.format_numbers(line.seeds),
            line.baseline.text(),
            line.final.text(),
            line.change.text(text.format_change),
            maybe(line.calibrated),
            maybe(line.after_cut),
            f'{line.macs_left.mean:.1f} %',
            text.format_count(line.params.mean),
            f'{line.epochs.mean:g}' if line.epochs else '-',
            text.format_duration(line.seconds.mean),
        )
        for line in comparison.lines
    ]
    named = all(line.group in line.name for line in comparison.lines)
    kept = [n for n, column in enumerate(_COLUMNS) if not (named and column == 'budget')]
    return [_COLUMNS[n] for n in kept], [[row[n] for n in kept] for row in rows]


def facts_of(comparison: Comparison) -> list[str]:
    """Return sentences about the table of methods: how to read it, and what it cost."""
    if not comparison.runs:
        return ['No run has finished.']
    spent, shared = spent_seconds(comparison)
    facts = [
        _READING,
        f'{text.plural(len(comparison.runs), "run")} took {text.format_duration(spent)} together.',
    ]
    if shared:
        facts[1] += f' Stages that they share saved {text.format_duration(shared)}.'
    return facts
