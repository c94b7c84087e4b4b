"""Tuning: each method gets the same number of trials, on samples that no final result uses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from easypruner.report.result import RunResult
from easypruner.study.methods import Method
from easypruner.study.proposals import Between, examples_of
from easypruner.study.runs import StudyRun, budget_name
from easypruner.study.study_file import Study
from easypruner.study.sweeps import Sweep
from easypruner.study.tuned_keys import Tune

FOLDER, SEARCHES = 'tuning', 'search'


@dataclass(frozen=True)
class Tuned:
    """The value that was chosen for a method and a budget.

    Attributes:
        method: the name of the method.
        budget: the budget, or None.
        key: the key of the config; a list if there are several.
        value: the value; a list of those of several keys.
        trials: the values and the accuracies on the validation split, in percent.
        sampler: what proposed the values, if not all were tried.
    """

    method: str
    budget: Mapping[str, Any] | None
    key: str | list[str]
    value: Any
    trials: tuple[tuple[Any, float], ...]
    sampler: str | None = None

    @property
    def options(self) -> dict[str, Any]:
        """Key of the config -> its value."""
        if isinstance(self.key, str):
            return {self.key: self.value}
        return dict(zip(self.key, self.value, strict=True))


def trials_of(study: Study) -> Study:
    """Return the study of all trials of grids: the tuned methods, with the first seed."""
    methods = [
        replace(method, sweep=dict(method.tune.sweeps), tune=None, held_out=True)
        for method in study.methods
        if method.tune is not None and method.tune.search is None
    ]
    return replace(study, methods=tuple(methods), seeds=study.seeds[:1])


def example_trials(study: Study) -> Study:
    """Return the study of the trials that are known before the first one: to check their configs.

    These are all trials of grids, and of each search as many as have all its values, and both ends
    of its ranges.
    """
    searched = [
        replace(method, sweep=sweep, tune=None, held_out=True)
        for method in study.methods
        if (tune := method.tune) is not None and tune.search is not None
        for sweep in _examples(tune.search.spaces)
    ]
    trials = trials_of(study)
    return replace(trials, methods=(*trials.methods, *searched))


def _examples(spaces: Mapping[str, Sweep | Between]) -> Iterator[dict[str, Sweep]]:
    """Yield as few combinations as have every example of each key."""
    values = {key: examples_of(space) for key, space in spaces.items()}
    for number in range(max(map(len, values.values()))):
        yield {key: Sweep((each[min(number, len(each) - 1)],)) for key, each in values.items()}


def choose(
    study: Study, runs: Iterable[StudyRun], work_dir: Callable[[StudyRun], Path]
) -> list[Tuned]:
    """Return the best value for each method and budget; of equal ones, the first.

    Args:
        study: the study.
        runs: the finished trials.
        work_dir: returns the work directory of a trial.
    """
    found: dict[str, list[tuple[Any, float]]] = {}
    for run in runs:
        accuracy = RunResult.load(work_dir(run)).final.accuracy
        found.setdefault(_name(run.method, run.budget), []).append((value_of(run.swept), accuracy))
    chosen = []
    for method in study.methods:
        if method.tune is None or method.tune.search is not None:
            continue
        for budget in study.budgets:
            trials = found[_name(method.name, budget)]
            chosen.append(best_of(method.name, budget, method.tune, trials))
    return chosen


def value_of(swept: Mapping[str, Any]) -> Any:
    """Return the value of a trial; a list of those of several keys."""
    values = list(swept.values())
    return values[0] if len(values) == 1 else values


def best_of(
    method: str, budget: Mapping[str, Any] | None, tune: Tune, trials: list[tuple[Any, float]]
) -> Tuned:
    """Return the best value of some trials; of equal ones, the first.

    Args:
        method: the name of the method.
        budget: the budget, or None.
        tune: the keys.
        trials: the values and the accuracies.
    """
    value, _ = max(trials, key=lambda trial: trial[1])
    key = tune.keys[0] if len(tune.keys) == 1 else tune.keys
    sampler = tune.search.text if tune.search else None
    return Tuned(method, budget, key, value, tuple(trials), sampler)


def with_chosen(study: Study, chosen: Iterable[Tuned]) -> Study:
    """Return a study whose methods have the chosen values."""
    values = {(entry.method, budget_name(entry.budget)): entry for entry in chosen}

    def changed(method: Method) -> Method:
        return replace(
            method,
            chosen={
                budget: entry.options
                for (name, budget), entry in values.items()
                if name == method.name
            },
        )

    return replace(study, methods=tuple(map(changed, study.methods)))


def _name(method: str, budget: Mapping[str, Any] | None) -> str:
    return f'{method} {budget_name(budget)}'
