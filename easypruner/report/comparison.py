"""Comparison of finished runs. Runs that differ only in their seeds become one line."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from easypruner.errors import EasyPrunerError, Mistakes
from easypruner.report.result import RunResult


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
    """The runs of one config, which differ only in their seeds.

    Attributes:
        name: the name of the config, unique within a comparison.
        runs: at least one run, ordered by seed.
        baseline: the accuracy of the unpruned network in percent.
        final: the accuracy at the end of the run in percent.
        change: the final accuracy minus the baseline of the same run, in percentage points.
        macs: the multiply-adds of the final network.
        macs_left: the remaining share of the original network's multiply-adds in percent; 100 if
            it has none.
        params: the number of parameters of the final network.
        bytes: the size of the final weights on disk.
        seconds: the wall time of the whole run.
    """

    name: str
    runs: tuple[RunResult, ...]

    baseline = _over_runs(lambda run: run.baseline.accuracy)
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
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the runs."""
        return tuple(run.seed for run in self.runs)

    @property
    def after_cut(self) -> Stat | None:
        """The accuracy right after the cut in percent; None if a run has no such row."""
        after = [run.cut[1].accuracy for run in self.runs if run.cut is not None]
        return Stat.of(after) if len(after) == len(self.runs) else None


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
    """Compare finished runs. Runs with the same config hash become one line.

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
    return Comparison(tuple(runs), _lines(runs))


def _lines(runs: Sequence[RunResult]) -> tuple[Line, ...]:
    by_config: dict[str, list[RunResult]] = {}
    for run in runs:
        by_config.setdefault(run.config_hash, []).append(run)
    used = Counter(members[0].name for members in by_config.values())
    lines = []
    for members in by_config.values():
        name = members[0].name
        if used[name] > 1:
            name = f'{name} ({members[0].work_dir})'
        lines.append(Line(name, tuple(sorted(members, key=lambda run: run.seed))))
    return tuple(lines)
