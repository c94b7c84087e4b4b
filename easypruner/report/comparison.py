"""Comparison of finished runs. Runs that differ only in their seeds become one line."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from easypruner.errors import EasyPrunerError, Mistakes
from easypruner.report.result import Row, RunResult
from easypruner.report.stage_files import read_stages


@dataclass(frozen=True)
class Stat:
    """Mean and standard deviation of one quantity over the runs of a line.

    Attributes:
        mean: the mean over the runs.
        std: the sample standard deviation over the runs; None for a single run.
    """

    mean: float
    std: float | None

    @classmethod
    def of(cls, values: Iterable[float]) -> Stat:
        """Return the statistics of at least one value."""
        numbers = list(values)
        return cls(fmean(numbers), stdev(numbers) if len(numbers) > 1 else None)

    def text(self, show: Callable[[float], str] = '{:.2f}'.format) -> str:
        """Return the mean, and the standard deviation if there is one."""
        return show(self.mean) if self.std is None else f'{show(self.mean)} ± {self.std:.2f}'


def _over_runs(value: Callable[[RunResult], float]) -> property:
    """Return a property of a line: the statistics of a value over its runs."""
    return property(lambda line: Stat.of(map(value, line.runs)))


@dataclass(frozen=True)
class Line:
    """The runs of one method, which differ only in their seeds.

    Attributes:
        name: the name of the method, unique within a comparison.
        runs: at least one run, ordered by seed.
        baseline: the accuracy of the unpruned network in percent.
        final: the accuracy at the end of the run in percent.
        change: the final accuracy minus the baseline of the same run, in percentage points.
        macs: the multiply-adds of the final network.
        macs_left: the remaining share of the original network's multiply-adds in percent; 100 if
            it has none.
        params: the number of parameters of the final network.
        bytes: the size of the final weights on disk.
        seconds: the wall time of the whole run, with the stages that it shares with others.
        group: the lines that have the same budget have the same group.
        method: the name of the method in all groups; '' for that of the config.
    """

    name: str
    runs: tuple[RunResult, ...]
    group: str = ''
    method: str = ''

    final = _over_runs(lambda run: run.final.accuracy)
    change = _over_runs(lambda run: run.final.accuracy - run.baseline.accuracy)
    macs = _over_runs(lambda run: run.final.macs)
    macs_left = _over_runs(
        lambda run: 100 * run.final.macs / run.whole.macs if run.whole.macs else 100.0
    )
    params = _over_runs(lambda run: run.final.params)
    bytes = _over_runs(lambda run: run.final.bytes)
    seconds = _over_runs(lambda run: sum(run.seconds.values()))

    @property
    def baseline(self) -> Stat:
        """The accuracy of the unpruned networks in percent. Runs that share one count once."""
        return Stat.of(row.accuracy for row in distinct_baselines(self.runs))

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the runs."""
        return tuple(run.seed for run in self.runs)

    @property
    def after_cut(self) -> Stat | None:
        """The accuracy right after the cut in percent; None if a run has no such row."""
        return self._known([run.cut and run.cut[1] for run in self.runs])

    @property
    def calibrated(self) -> Stat | None:
        """The accuracy after the cut with recalibrated batch norms; None if a run has none."""
        return self._known([run.calibrated for run in self.runs])

    @property
    def epochs(self) -> Stat | None:
        """The epochs of all training stages; None if they are not known."""
        known = [run.epochs for run in self.runs if run.epochs is not None]
        return Stat.of(known) if len(known) == len(self.runs) else None

    def is_called(self, name: str) -> bool:
        """Return whether this is the line or the method with a name."""
        return name in (self.name, self.method, self.runs[0].name)

    def by_seed(self, quantity: Callable[[RunResult], float | None]) -> dict[int, float]:
        """Return seed -> the mean of a quantity over the runs with this seed that have it."""
        values: dict[int, list[float]] = {}
        for run in self.runs:
            value = quantity(run)
            if value is not None:
                values.setdefault(run.seed, []).append(value)
        return {seed: fmean(found) for seed, found in values.items()}

    def _known(self, rows: Sequence[Row | None]) -> Stat | None:
        found = [row.accuracy for row in rows if row is not None]
        return Stat.of(found) if len(found) == len(self.runs) else None


@dataclass(frozen=True)
class Comparison:
    """Compared runs.

    Attributes:
        runs: all runs, in the order of the arguments.
        lines: the same runs as lines, ordered by the first run of each line.
    """

    runs: tuple[RunResult, ...]
    lines: tuple[Line, ...]


def compare(work_dirs: Sequence[str | os.PathLike[str]]) -> Comparison:
    """Compare finished runs. Runs of one method become one line.

    Configs are of one method if they differ in nothing that changes results but their seeds and
    the paths of checkpoints.

    Args:
        work_dirs: the work directories of the runs; duplicates are ignored.

    Raises:
        EasyPrunerError: there is no work directory, or some are missing, unfinished or damaged; the
            message lists all of these.
    """
    if not work_dirs:
        raise EasyPrunerError('got nothing to compare; give work directories of finished runs')
    distinct: dict[Path, str | os.PathLike[str]] = {}
    for work_dir in work_dirs:
        distinct.setdefault(Path(work_dir).resolve(), work_dir)
    runs: list[RunResult] = []
    problems = Mistakes()
    for work_dir in distinct.values():
        with problems.collect():
            runs.append(RunResult.load(work_dir))
    if problems.found:
        raise EasyPrunerError('\n'.join(problems.found))
    return compare_results(runs)


def compare_results(runs: Sequence[RunResult]) -> Comparison:
    """Compare the results of runs; the other function reads them from work directories."""
    return Comparison(tuple(runs), _lines(runs))


def distinct_baselines(runs: Iterable[RunResult]) -> list[Row]:
    """Return the rows of the unpruned networks; a network that several runs share counts once."""
    found: dict[Hashable, Row] = {}
    for run in runs:
        found.setdefault(_baseline_identity(run), run.baseline)
    return list(found.values())


def _baseline_identity(run: RunResult) -> Hashable:
    """Return the hash of the weights of a baseline, or else what distinguishes its row."""
    number = run.rows.index(run.baseline) + 1
    stage = next((s for s in read_stages(run.work_dir) if s.rows == number), None)
    return (stage.weights if stage is not None else '') or (run.seed, run.baseline)


def budget_text(run: RunResult) -> str:
    """Return the limits of a run as text."""
    if run.budget is None:
        return 'no budget'
    return ' and '.join(f'{budget.kind} {budget.asked:g}' for budget in run.budget.each)


def _lines(runs: Sequence[RunResult]) -> tuple[Line, ...]:
    methods = _methods(runs)
    used = Counter(members[0].name for members in methods)
    lines = []
    for members in methods:
        name = members[0].name
        if used[name] > 1:
            name = f'{name} ({members[0].work_dir})'
        ordered = tuple(sorted(members, key=lambda run: run.seed))
        lines.append(Line(name, ordered, budget_text(ordered[0])))
    return tuple(lines)


def _methods(runs: Sequence[RunResult]) -> list[list[RunResult]]:
    """Group runs by method. Different configs with one seed are not seeds of one method."""
    by_method: dict[str, list[RunResult]] = {}
    for run in runs:
        by_method.setdefault(run.method_hash or run.config_hash, []).append(run)
    groups: dict[Hashable, list[RunResult]] = {}
    for method, members in by_method.items():
        configs = {(run.seed, run.config_hash) for run in members}
        apart = len(configs) > len({run.seed for run in members})
        for run in members:
            groups.setdefault((method, run.config_hash if apart else ''), []).append(run)
    return list(groups.values())
