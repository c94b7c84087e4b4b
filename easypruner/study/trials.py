"""Executes the trials of a study: all values of a grid, or what Optuna proposes step by step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from easypruner.report.result import RunResult
from easypruner.study.executors import Executor
from easypruner.study.methods import Method
from easypruner.study.parts import Part
from easypruner.study.plan import plan_runs, plan_study
from easypruner.study.proposals import Proposals
from easypruner.study.record import FINISHED, Record, is_finished
from easypruner.study.runs import StudyRun, runs_of
from easypruner.study.study import Scheduler, report, run_study
from easypruner.study.study_file import Study
from easypruner.study.sweeps import Sweep
from easypruner.study.tuned_keys import Tune
from easypruner.study.tuning import (
    FOLDER,
    SEARCHES,
    Tuned,
    best_of,
    choose,
    trials_of,
    value_of,
    with_chosen,
)
from easypruner.study.unchanged import check_unchanged


def tune_study(
    study: Study, part: Part, folder: Path, executor: Executor, store: Path, console: Console
) -> tuple[Study, list[Tuned]]:
    """Execute the trials of a part of a study; return the study with the chosen values, and these.

    Raises:
        EasyPrunerError: trials have failed.
        Interrupted: Ctrl-C; finished stages and epochs are kept.
    """
    chosen = _tune_by_grids(study, part, folder, executor, store, console)
    chosen += _tune_by_searches(study, part, folder / SEARCHES, executor, store, console)
    for entry in chosen:
        console.print(f'{entry.method}: {entry.key}={entry.value}', markup=False, highlight=False)
    return (with_chosen(study, chosen), chosen) if chosen else (study, [])


def _tune_by_grids(
    study: Study, part: Part, folder: Path, executor: Executor, store: Path, console: Console
) -> list[Tuned]:
    trials, needed = trials_of(study), trials_of(part.of(study))
    if not needed.methods:
        return []
    # The seed of the trials is that of the whole study.
    plan = plan_study(replace(needed, seeds=trials.seeds))
    console.print(f'tuning: {len(plan.runs)} trials', highlight=False)
    run_study(trials, plan, folder / FOLDER, executor, store, console)
    return choose(part.of(study), plan.runs, lambda run: folder / FOLDER / 'runs' / run.id)


@dataclass
class _Search:
    """The search for the values of one method and budget.

    Attributes:
        study: the study of its trials.
        method: the method.
        budget: the budget, or None.
        tune: the keys.
        wanted: whether its trials are executed now; otherwise those that are finished are listed.
        trials: the values and the accuracies until now.
        run: the trial that was proposed last; None after the last one.
    """

    study: Study
    method: Method
    budget: Mapping[str, Any] | None
    tune: Tune
    wanted: bool
    trials: list[tuple[Any, float]] = field(default_factory=list)
    run: StudyRun | None = None

    def __post_init__(self) -> None:
        assert self.tune.search is not None
        self._proposals = Proposals(self.tune.search)

    def ask(self, record: Path) -> None:
        """Propose the next trial, unless it is neither finished nor wanted."""
        values = self._proposals.ask()
        self.run = None if values is None else self._run_of(values)
        if self.run is not None and not self.wanted and not is_finished(record / self.run.id):
            self.run = None

    def tell(self, accuracy: float) -> None:
        """Take the result of the trial that was proposed last."""
        assert self.run is not None
        self._proposals.tell(accuracy)
        self.trials.append((value_of(self.run.swept), accuracy))

    def _run_of(self, values: Mapping[str, Any]) -> StudyRun:
        sweeps = {key: Sweep((value,)) for key, value in values.items()}
        method = replace(self.method, sweep=sweeps, tune=None, held_out=True)
        [run] = runs_of(replace(self.study, methods=(method,), budgets=(self.budget,)))
        return run


def _searches(study: Study, part: Part) -> list[_Search]:
    """Return the searches of a study."""
    now = part.of(study)
    names = {method.name for method in now.methods}
    one_seed = replace(study, seeds=study.seeds[:1])
    return [
        _Search(
            one_seed,
            method,
            budget,
            method.tune,
            wanted=method.name in names and budget in now.budgets,
        )
        for method in study.methods
        if method.tune is not None and method.tune.search is not None
        for budget in study.budgets
    ]


def _tune_by_searches(
    study: Study, part: Part, folder: Path, executor: Executor, store: Path, console: Console
) -> list[Tuned]:
    """Execute one trial of each search at a time, and propose the next from the results."""
    searches = _searches(study, part)
    wanted = [search for search in searches if search.wanted]
    if not wanted:
        return []
    console.print(f'search: {sum(s.tune.trials for s in wanted)} trials', highlight=False)
    runs: dict[str, StudyRun] = {}
    active, record = searches, Record(folder, study.name, [])
    while active:
        for search in active:
            search.ask(folder / 'runs')
        active = [search for search in active if search.run is not None]
        asked = {search.run.id: search.run for search in active if search.run is not None}
        check_unchanged(list(asked.values()), folder)
        runs.update(asked)
        record = Record(
            folder,
            study.name,
            list(runs.values()),
            status=record.status,
            errors=record.errors,
        )
        record.write()
        if any(record.status[name] != FINISHED for name in asked):
            plan = plan_runs(list(asked.values()), study.plugins)
            Scheduler(plan, record, executor, store, console).run()
        active = [s for s in active if s.run and record.status[s.run.id] == FINISHED]
        for search in active:
            assert search.run is not None
            result = RunResult.load(record.work_dir(search.run))
            search.tell(result.final.accuracy)
    report(record, list(runs.values()), console)
    return [best_of(s.method.name, s.budget, s.tune, s.trials) for s in wanted]
