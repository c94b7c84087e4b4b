"""Runs a study: checks it, executes its runs, and keeps study.json up to date."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mmengine.registry import init_default_scope
from rich.console import Console

from easypruner.base.files import make_folder, write_json
from easypruner.base.json_fields import content_hash
from easypruner.base.lock import FolderLock
from easypruner.engine.compat import prepare
from easypruner.engine.config import DEFAULT_SCOPE
from easypruner.errors import EasyPrunerError, Interrupted, Mistakes
from easypruner.pipeline.fingerprint import essential, plain, stage_fingerprint
from easypruner.pipeline.preflight import expand
from easypruner.plugins import load_plugins
from easypruner.report import study_report
from easypruner.report.fairness import list_different_settings
from easypruner.report.text import format_duration
from easypruner.study.executors import Executor, Running
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
from easypruner.study.settings import epochs_of, plain_parts, settings_of, trained_epochs
from easypruner.study.study_file import Study
from easypruner.study.tuning import FOLDER, SEARCHES, Tuned

_PAUSE = 0.2


@dataclass(frozen=True)
class Plan:
    """What a study will do.

    Attributes:
        runs: all runs.
        stages: id of a run -> the key of each of its stages and their epochs. Stages of equal keys
            are computed once.
        differences: what makes the comparison unfair, in words.
    """

    runs: tuple[StudyRun, ...]
    stages: dict[str, tuple[tuple[str, int], ...]]
    differences: tuple[str, ...]

    def epochs(self, runs: Iterable[StudyRun]) -> int:
        """Return the number of epochs to train for some runs, those that they share once."""
        return sum({key: n for run in runs for key, n in self.stages[run.id]}.values())

    def trainings(self, runs: Iterable[StudyRun]) -> tuple[int, int]:
        """Return the number of trainings of some runs: with shared ones once, and without."""
        keys = [key for run in runs for key, epochs in self.stages[run.id] if epochs]
        return len(set(keys)), len(keys)


def plan_study(study: Study) -> Plan:
    """Check the configs of a study.

    Raises:
        ConfigError: some have mistakes; the message lists all.
    """
    return plan_runs(runs_of(study), study.plugins)


def plan_runs(runs: Sequence[StudyRun], plugins: Sequence[str]) -> Plan:
    """Check the configs of runs.

    Raises:
        ConfigError: some have mistakes; the message lists all.
    """
    prepare()
    mistakes = Mistakes()
    stages: dict[str, tuple[tuple[str, int], ...]] = {}
    parts: dict[str, dict[str, Any]] = {}
    load_plugins(plugins)
    for run in runs:
        first = next(other for other in runs if other.label == run.label)
        if first is not run:
            if first.id in stages:
                stages[run.id] = tuple((f'{run.seed} {key}', n) for key, n in stages[first.id])
            continue
        with mistakes.collect(run.label):
            config = settings_of(run)
            init_default_scope(config.get('default_scope', DEFAULT_SCOPE))
            found = Mistakes()
            planned = expand(config.get('stages') or [], found)
            found.raise_all()
            epochs = epochs_of(planned, config)
            key = content_hash({'config': _without_stages(config), 'seed': run.seed})
            keys = []
            for entry, length in zip(planned, epochs, strict=True):
                key = stage_fingerprint(entry.config, key)
                keys.append((key, length))
            stages[run.id] = tuple(keys)
            if run.baseline is None:
                parts[run.label] = plain_parts(config, trained_epochs(planned, epochs))
    mistakes.raise_all()
    return Plan(tuple(runs), stages, list_different_settings(_by_method(runs, parts)))


def _without_stages(config: Any) -> dict[str, Any]:
    content = essential(plain(config.to_dict()))
    content.pop('stages', None)
    return content


def _by_method(
    runs: Sequence[StudyRun], parts: dict[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Return the parts of each method's first config: swept keys and budgets differ on purpose."""
    found: dict[str, dict[str, Any]] = {}
    for run in runs:
        if run.label in parts:
            found.setdefault(run.method, parts[run.label])
    return found


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
    lock = FolderLock(folder)
    lock.acquire()
    try:
        chosen = [asdict(entry) for entry in tuned]
        record = Record(folder, study.name, runs_of(study), plan.differences, chosen)
        record.write()
        Scheduler(plan, record, executor, store, console).run()
        report(record, plan.runs, console)
    finally:
        lock.release()


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
