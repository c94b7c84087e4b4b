"""The file study.json: each run of a study, where it is and how it stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from easypruner.base.files import write_json
from easypruner.base.json_fields import check_hash, read_json, with_hash
from easypruner.base.lock import LOCK
from easypruner.errors import EasyPrunerError
from easypruner.report.result import RunResult
from easypruner.report.stage_files import has_whole_results
from easypruner.study.runs import StudyRun

STUDY = 'study.json'
WAITING, RUNNING, FINISHED, FAILED = 'waiting', 'running', 'finished', 'failed'


@dataclass
class Record:
    """How the runs of a study stand; each change is written to study.json.

    Attributes:
        folder: the folder of the study.
        name: the name of the study.
        runs: all runs.
        differences: what makes the comparison unfair, in words.
        tuned: the values that trials have chosen.
        status: id of a run -> its status.
        errors: id of a failed run -> why it failed.
    """

    folder: Path
    name: str
    runs: Sequence[StudyRun]
    differences: Sequence[str] = ()
    tuned: Sequence[Mapping[str, Any]] = ()
    status: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tuned = [*self._tuned_before(), *self.tuned]
        for run in self.runs:
            finished = is_finished(self.work_dir(run))
            self.status.setdefault(run.id, FINISHED if finished else WAITING)

    def _tuned_before(self) -> list[Mapping[str, Any]]:
        """Return what study.json says about methods and budgets that are not tuned now."""
        if not (self.folder / STUDY).is_file():
            return []
        now = [(entry['method'], entry['budget']) for entry in self.tuned]
        before = read_json(self.folder / STUDY)['tuned'].value
        return [entry for entry in before if (entry['method'], entry['budget']) not in now]

    def work_dir(self, run: StudyRun) -> Path:
        """Return the work directory of a run."""
        return self.folder / 'runs' / run.id

    def note(self, run: StudyRun, status: str, error: str = '') -> None:
        """Change how a run stands, and write study.json."""
        self.status[run.id] = status
        self.errors.pop(run.id, None)
        if error:
            self.errors[run.id] = error
        self.write()

    def write(self) -> None:
        """Write study.json."""
        content = {
            'name': self.name,
            'differences': list(self.differences),
            'tuned': list(self.tuned),
            'runs': list(map(self._entry, self.runs)),
        }
        write_json(self.folder / STUDY, with_hash(content))

    def _entry(self, run: StudyRun) -> dict[str, Any]:
        return {
            'id': run.id,
            'method': run.method,
            'label': run.label,
            'baseline': run.baseline,
            'seed': run.seed,
            'budget': run.budget and dict(run.budget),
            'swept': dict(run.swept),
            'work_dir': str(self.work_dir(run).relative_to(self.folder)),
            'status': self.status[run.id],
            'error': self.errors.get(run.id),
        }


def check_folder(folder: Path, resume: bool, overwrite: bool) -> None:
    """Raise EasyPrunerError unless a study may use a folder."""
    if resume and overwrite:
        raise EasyPrunerError('got --resume and --overwrite; choose one of them')
    # A study that was killed at once leaves only its lock.
    used = folder.is_dir() and any(entry.name != LOCK for entry in folder.iterdir())
    known = (folder / STUDY).is_file()
    if resume and not known:
        raise EasyPrunerError(
            f'there is no study to resume in {str(folder)!r}; start it without --resume'
        )
    if used and not known:
        raise EasyPrunerError(
            f'the folder {str(folder)!r} exists, and is not that of a study (it has no {STUDY}); '
            'choose another with --out'
        )
    if resume:
        _check_record(folder)
    if used and not (resume or overwrite):
        raise EasyPrunerError(
            f'the folder {str(folder)!r} has a study; continue it with --resume, replace it with '
            '--overwrite, or choose another with --out'
        )


def _check_record(folder: Path) -> None:
    """Raise EasyPrunerError if the study.json of a folder is damaged."""
    try:
        check_hash(read_json(folder / STUDY))
    except EasyPrunerError as error:
        raise EasyPrunerError(
            f'{error}; start the study in another folder with --out, where finished stages come '
            'from the store, or replace it with --overwrite'
        ) from error


def is_finished(work_dir: Path) -> bool:
    """Return whether a run has written its result and the files that it leaves, undamaged."""
    try:
        RunResult.load(work_dir)
    except EasyPrunerError:
        return False
    return has_whole_results(work_dir)
