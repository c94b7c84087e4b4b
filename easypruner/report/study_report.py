"""The report of a study: a folder of runs, of which some may have failed or never started."""

from __future__ import annotations

import dataclasses
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pluggy
from rich.console import Console

from easypruner.base.json_fields import Field, check_hash, read_json
from easypruner.errors import EasyPrunerError, Mistakes
from easypruner.report.answer import Answer, MissingRun
from easypruner.report.answer_files import write_answer
from easypruner.report.artifacts import collect_artifacts
from easypruner.report.comparison import Comparison, Line, compare_results
from easypruner.report.comparison_report import print_answer
from easypruner.report.fairness import list_differences
from easypruner.report.result import SUMMARY, RunResult

STUDY = 'study.json'
_FINISHED = ('finished', 'done', 'ok', 'completed')


@dataclass(frozen=True)
class StudyRun:
    """A run of a study, as study.json lists it.

    Attributes:
        work_dir: its work directory.
        method: the name of its method; '' if the config's name is to be used.
        seed: its seed; None if it is not known.
        budget: its budget as text; runs of one budget are compared with each other.
        keys: the values of the keys that the study sweeps.
        status: how far the run came; '' if it is not known.
        error: why it failed; '' if it did not.
        label: what its line is called, unique for its method, budget and keys; '' for a name that
            is made of these.
    """

    work_dir: Path
    method: str = ''
    seed: int | None = None
    budget: str = ''
    keys: dict[str, str] = field(default_factory=dict)
    status: str = ''
    error: str = ''
    label: str = ''

    def line(self, several: bool) -> str:
        """Return the name of its line: its label, or its method, swept values and budget."""
        words = [self.method, *(f'{key}={value}' for key, value in self.keys.items())]
        return self.label or ', '.join(filter(None, [*words, self.budget if several else '']))

    @property
    def name(self) -> str:
        """What the run is called where it has no result."""
        seed = '' if self.seed is None else f'seed {self.seed}'
        return ', '.join(filter(None, [self.line(True) or str(self.work_dir), seed]))


def write(
    folder: str | os.PathLike[str],
    work_dirs: Sequence[str | os.PathLike[str]] | None = None,
    *,
    reference: str | None = None,
    manager: pluggy.PluginManager | None = None,
    console: Console | None = None,
) -> tuple[Path, ...]:
    """Write comparison.json, comparison.md, report.html and pictures into the folder of a study.

    Runs without a result are listed, and stop nothing.

    Args:
        folder: the folder of the study. Its study.json lists the runs; without one, every work
            directory in it counts.
        work_dirs: the work directories of the runs, in place of study.json.
        reference: the method that the others are compared with; None for the first of each budget.
        manager: the plugin manager, which collects artifacts; None for no artifacts.
        console: the console that the tables are printed to; None prints nothing.

    Returns:
        the paths of the written files.

    Raises:
        EasyPrunerError: study.json is damaged, there are no runs, or no method is called
            ``reference``.
        PluginError: a plugin returned something other than artifacts.
    """
    place = Path(folder)
    planned, title, chosen, known = _planned(place, work_dirs)
    results: list[tuple[StudyRun, RunResult]] = []
    missing: list[MissingRun] = []
    for run in planned:
        problem = Mistakes()
        with problem.collect():
            results.append((run, RunResult.load(run.work_dir)))
        if problem.found:
            status = run.status if run.status not in _FINISHED else ''
            reason = run.error or ' '.join(problem.found)
            missing.append(MissingRun(run.name, status or 'missing', reason))
    comparison = _comparison(results)
    if chosen is not None and not any(line.is_called(chosen) for line in comparison.lines):
        # All of its runs have failed.
        chosen = None
    answer = Answer(
        title=title,
        comparison=comparison,
        notes=tuple(dict.fromkeys([*known, *_notes(comparison)])),
        missing=tuple(missing),
        artifacts=collect_artifacts(manager, comparison.runs),
        reference=reference or chosen,
    )
    written = write_answer(answer, place)
    if console is not None:
        print_answer(answer, written, console)
    return tuple(written)


def read_study(folder: Path) -> list[StudyRun]:
    """Return the runs that the study.json of a folder lists.

    Raises:
        EasyPrunerError: a field is missing or has a wrong value.
    """
    content = read_json(folder / STUDY)
    if content.get('hash'):
        check_hash(content)
    return [_read_run(entry, folder) for entry in content['runs'].items()]


def _planned(
    folder: Path, work_dirs: Sequence[str | os.PathLike[str]] | None
) -> tuple[list[StudyRun], str, str | None, list[str]]:
    """Return the runs of a study, its title, its reference, and what it knows to be unfair."""
    title, reference, notes = folder.resolve().name or 'study', None, []
    if work_dirs is not None:
        runs = [StudyRun(Path(work_dir)) for work_dir in work_dirs]
    elif (folder / STUDY).is_file():
        content = read_json(folder / STUDY)
        title, reference = _text(content, 'name') or title, _text(content, 'reference') or None
        differences = content.get('differences')
        notes = [entry.text() for entry in differences.items()] if differences else []
        runs = read_study(folder)
    else:
        found = sorted(path.parent for path in folder.rglob(SUMMARY))
        runs = [StudyRun(path) for path in found]
    if not runs:
        raise EasyPrunerError(
            f'{str(folder)!r} has no {STUDY} that lists a run, and no finished run in it; give the '
            'folder of a study, or work directories of runs'
        )
    distinct = {run.work_dir.resolve(): run for run in reversed(runs)}
    return list(distinct.values())[::-1], title, reference, notes


def _read_run(entry: Field, folder: Path) -> StudyRun:
    seed, swept = entry.get('seed'), entry.get('keys') or entry.get('swept')
    return StudyRun(
        work_dir=folder / entry['work_dir'].text(),
        method=entry['method'].text(),
        seed=seed.integer() if seed else None,
        budget=_budget_text(entry.get('budget')),
        keys={key: str(value.value) for key, value in swept.entries()} if swept else {},
        status=_text(entry, 'status'),
        error=_text(entry, 'error'),
        label=_text(entry, 'label'),
    )


def _budget_text(budget: Field | None) -> str:
    """Return a budget as text: it may be a config, such as ``dict(type='Macs', keep=0.5)``."""
    if budget is None:
        return ''
    value = budget.value
    return ' '.join(map(str, value.values())) if isinstance(value, dict) else str(value)


def _text(entry: Field, key: str) -> str:
    """Return a field as text, whatever its type; '' if it is absent."""
    found = entry.get(key)
    return '' if found is None else str(found.value)


def _comparison(results: Sequence[tuple[StudyRun, RunResult]]) -> Comparison:
    """Group runs by what the study says; those that it does not name, by their configs."""
    several = len({run.budget for run, _ in results}) > 1
    named: dict[tuple[str, str, str], list[RunResult]] = defaultdict(list)
    unnamed = []
    for run, result in results:
        if run.method:
            named[run.line(several), run.budget, run.method].append(result)
        else:
            unnamed.append(result)
    lines = [
        Line(name, tuple(sorted(members, key=lambda run: run.seed)), budget, method)
        for (name, budget, method), members in named.items()
    ]
    runs = tuple(result for _, result in results)
    return Comparison(runs, (*lines, *compare_results(unnamed).lines))


def _notes(comparison: Comparison) -> Iterator[str]:
    """Yield what is unfair within each budget."""
    groups = list(dict.fromkeys(line.group for line in comparison.lines))
    for group in groups:
        lines = tuple(line for line in comparison.lines if line.group == group)
        runs = tuple(run for line in lines for run in line.runs)
        within = dataclasses.replace(comparison, runs=runs, lines=lines)
        for note in list_differences(within):
            yield f'{group}: {note}' if len(groups) > 1 else note
