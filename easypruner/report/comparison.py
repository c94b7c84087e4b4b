"""Comparison of finished runs. Runs that differ only in their seeds become one line."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from easypruner.errors import EasyPrunerError
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
        numbers = np.array(list(values), dtype=float)
        std = float(numbers.std(ddof=1)) if len(numbers) > 1 else None
        return cls(float(numbers.mean()), std)


@dataclass(frozen=True)
class Line:
    """The runs of one config, which differ only in their seeds.

    Attributes:
        name: the name of the config, unique within a comparison.
        runs: at least one run, ordered by seed.
    """

    name: str
    runs: tuple[RunResult, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the runs."""
        return tuple(run.seed for run in self.runs)

    @property
    def baseline(self) -> Stat:
        """The accuracy of the unpruned network in percent."""
        return self._stat(lambda run: run.baseline.accuracy)

    @property
    def final(self) -> Stat:
        """The accuracy at the end of the run in percent."""
        return self._stat(lambda run: run.final.accuracy)

    @property
    def change(self) -> Stat:
        """The final accuracy minus the baseline of the same run, in percentage points."""
        return self._stat(lambda run: run.final.accuracy - run.baseline.accuracy)

    @property
    def after_cut(self) -> Stat | None:
        """The accuracy right after the cut in percent; None if a run has no such row."""
        cuts = [run.cut for run in self.runs]
        if any(cut is None for cut in cuts):
            return None
        return Stat.of(cut[1].accuracy for cut in cuts if cut is not None)

    @property
    def macs(self) -> Stat:
        """The multiply-adds of the final network."""
        return self._stat(lambda run: run.final.macs)

    @property
    def macs_left(self) -> Stat:
        """The remaining share of the baseline's multiply-adds in percent; 100 if it has none."""
        return self._stat(
            lambda run: 100 * run.final.macs / run.baseline.macs if run.baseline.macs else 100.0
        )

    @property
    def params(self) -> Stat:
        """The number of parameters of the final network."""
        return self._stat(lambda run: run.final.params)

    @property
    def size(self) -> Stat:
        """The size of the final weights on disk, in bytes."""
        return self._stat(lambda run: run.final.bytes)

    @property
    def seconds(self) -> Stat:
        """The wall time of the whole run."""
        return self._stat(lambda run: sum(run.seconds.values()))

    def _stat(self, value: Callable[[RunResult], float]) -> Stat:
        return Stat.of(value(run) for run in self.runs)


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
    loaded = [_load(work_dir) for work_dir in distinct.values()]
    problems = [str(run) for run in loaded if isinstance(run, EasyPrunerError)]
    if problems:
        raise EasyPrunerError('\n'.join(problems))
    runs = tuple(run for run in loaded if isinstance(run, RunResult))
    return Comparison(runs, _lines(runs))


def _load(work_dir: str | os.PathLike[str]) -> RunResult | EasyPrunerError:
    try:
        return RunResult.load(work_dir)
    except EasyPrunerError as error:
        return error


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
