"""Runs a study: executes its runs, and keeps study.json up to date."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console

from easypruner.base.files import make_folder, write_json
from easypruner.errors import EasyPrunerError, Interrupted
from easypruner.plugins import load_plugins
from easypruner.report import study_report
from easypruner.report.text import format_duration
from easypruner.study.executors import Executor, Running
from easypruner.study.plan import Plan
from easypruner.study.record import (
    FAILED,
    FINISHED,
    RUNNING,
    STUDY,
    WAITING,
    Record,
    is_finished,
)
from easypruner.study.runs import StudyRun, runs_of
from easypruner.study.study_file import Study
from easypruner.study.tuning import FOLDER, SEARCHES, Tuned
from easypruner.study.unchanged import plugin_code

_PAUSE = 0.2


@dataclass
class Scheduler:
    """Executes the unfinished runs of a study, and goes on after failures.

    Args:
        plan: the plan of the study.
        record: how its runs stand.
        executor: where they are executed.
        store: the folder of stages that they share.
        console: prints the progress.
    """

    plan: Plan
    record: Record
    executor: Executor
    store: Path
    console: Console
    _running: dict[str, Running] = field(default_factory=dict)
    _begin: float = 0.0
    _done: int = 0
    _before: int = 0

    def run(self) -> None:
        """Execute all runs.

        Raises:
            Interrupted: Ctrl-C; the runs were asked to save where they stand.
        """
        waiting = [run for run in self.plan.runs if self.record.status[run.id] != FINISHED]
        by_id = {run.id: run for run in waiting}
        self._begin, self._done = time.monotonic(), len(self.plan.runs) - len(waiting)
        self._before = self.plan.epochs(self._with_status(FINISHED))
        try:
            while waiting or self._running:
                while waiting and len(self._running) < self.executor.jobs:
                    self._start(waiting.pop(self._next(waiting, by_id)))
                ended = [(key, job.outcome()) for key, job in self._running.items()]
                for key, outcome in ended:
                    if outcome is not None:
                        del self._running[key]
                        self._end(by_id[key], outcome)
                if all(outcome is None for _, outcome in ended):
                    time.sleep(_PAUSE)
        except KeyboardInterrupt:
            self._stop()
            raise Interrupted('--resume') from None

    def _next(self, waiting: Sequence[StudyRun], by_id: dict[str, StudyRun]) -> int:
        """Return which run to start: one that needs no stage which a running one computes."""
        busy = {self.plan.stages[key][0][0] for key in self._running if self.plan.stages[key]}
        finished = self._with_status(FINISHED)
        done = {self.plan.stages[run.id][0][0] for run in finished if self.plan.stages[run.id]}
        for place, run in enumerate(waiting):
            first = self.plan.stages[run.id][0][0] if self.plan.stages[run.id] else ''
            if first in done or first not in busy:
                return place
        return 0

    def _with_status(self, *statuses: str) -> list[StudyRun]:
        """Return the runs of the plan that stand like this; the study may have others."""
        return [run for run in self.plan.runs if self.record.status[run.id] in statuses]

    def _start(self, run: StudyRun) -> None:
        file = self.record.folder / 'jobs' / f'{run.id}.json'
        content = {
            'run': run.to_json(),
            'work_dir': str(self.record.work_dir(run)),
            'store': str(self.store),
            'code': plugin_code(run.plugins),
        }
        write_json(file, content)
        self._running[run.id] = self.executor.start(file, run.id)
        self.record.note(run, RUNNING)

    def _end(self, run: StudyRun, problem: str) -> None:
        if not problem and not is_finished(self.record.work_dir(run)):
            problem = 'it ended without a result; its stages need Report as the last one'
        self.record.note(run, FAILED if problem else FINISHED, problem)
        self._done += 1
        first = f': {problem.splitlines()[0]}' if problem else ''
        state = 'failed' if problem else 'done'
        text = f'[{self._done}/{len(self.plan.runs)}] {run.label}, seed {run.seed}: {state}{first}'
        left = self._time_left()
        self.console.print(f'{text}; {left}' if left else text, markup=False, highlight=False)

    def _time_left(self) -> str:
        """Return the time left, by the epochs that are not trained yet."""
        ended = self._with_status(FINISHED, FAILED)
        done, total = self.plan.epochs(ended), self.plan.epochs(self.plan.runs)
        if done <= self._before or total <= done:
            return ''
        spent = time.monotonic() - self._begin
        return f'{format_duration(spent / (done - self._before) * (total - done))} left'

    def _stop(self) -> None:
        for job in self._running.values():
            job.stop()
        for key, job in self._running.items():
            job.wait()
            run = next(run for run in self.plan.runs if run.id == key)
            self.record.note(run, FINISHED if is_finished(self.record.work_dir(run)) else WAITING)


def run_study(
    study: Study,
    plan: Plan,
    folder: Path,
    executor: Executor,
    store: Path,
    console: Console,
    tuned: Sequence[Tuned] = (),
) -> None:
    """Execute the unfinished runs of a plan, and compare all finished runs of a study.

    The caller owns the lock of the study's folder.

    Args:
        study: the whole study.
        plan: the plan of the study or of a part of it.
        folder: the folder of the study.
        executor: where the runs are executed.
        store: the folder of stages that they share.
        console: prints the progress.
        tuned: the values that trials have chosen.

    Raises:
        EasyPrunerError: runs have failed, which the message names; the others are finished.
        Interrupted: Ctrl-C; finished stages and epochs are kept.
    """
    chosen = [asdict(entry) for entry in tuned]
    record = Record(folder, study.name, runs_of(study), plan.differences, chosen)
    record.write()
    Scheduler(plan, record, executor, store, console).run()
    report(record, plan.runs, console)


def report(record: Record, runs: Sequence[StudyRun], console: Console) -> None:
    """Compare the finished runs of a study.

    Raises:
        EasyPrunerError: some of ``runs`` have failed, which the message names.
    """
    study_report.write(record.folder, manager=load_plugins().manager, console=console)
    failed = [run for run in runs if record.status[run.id] == FAILED]
    if failed:
        lines = [f'{run.label}, seed {run.seed}: {record.errors[run.id]}' for run in failed]
        raise EasyPrunerError(
            f'{len(failed)} of {len(runs)} runs failed; the others are finished. Correct '
            'the causes, and run these again with --resume:\n  - ' + '\n  - '.join(lines)
        )


def clear(folder: Path) -> None:
    """Remove the files of a study."""
    for name in ('runs', 'jobs', FOLDER, SEARCHES):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / STUDY).unlink(missing_ok=True)
    make_folder(folder)
