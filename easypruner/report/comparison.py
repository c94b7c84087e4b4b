"""Finished runs joined to lines: repetitions with other seeds become mean and deviation."""

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
    """Mean and sample standard deviation of one quantity over a line's runs.

    Attributes:
        mean: over the runs.
        std: over the runs; None for a single run.
    """

    mean: float
    std: float | None

    @classmethod
    def of(cls, values: Iterable[float]) -> Stat:
        """Return the statistics of ``values``, one at the least."""
        numbers = np.array(list(values), dtype=float)
        std = float(numbers.std(ddof=1)) if len(numbers) > 1 else None
        return cls(float(numbers.mean()), std)


@dataclass(frozen=True)
class Line:
    """The runs of one config, which differ only in their seeds.

    Attributes:
        name: of the config; unique within a comparison.
        runs: one at the least, ordered by seed.
    """

    name: str
    runs: tuple[RunResult, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the runs."""
        return tuple(run.seed for run in self.runs)

    @property
    def baseline(self) -> Stat:
        """Accuracy of the unpruned network, percent."""
        return self._stat(lambda run: run.baseline.accuracy)

    @property
    def final(self) -> Stat:
        """Accuracy at the end of the run, percent."""
        return self._stat(lambda run: run.final.accuracy)

    @property
    def change(self) -> Stat:
        """Final accuracy less the same run's baseline, points."""
        return self._stat(lambda run: run.final.accuracy - run.baseline.accuracy)

    @property
    def after_cut(self) -> Stat | None:
        """Accuracy right after the cut, percent; None where a run has no such row."""
        cuts = [run.cut for run in self.runs]
        if any(cut is None for cut in cuts):
            return None
        return Stat.of(cut[1].accuracy for cut in cuts if cut is not None)

    @property
    def macs(self) -> Stat:
        """Multiply-adds of the final network."""
        return self._stat(lambda run: run.final.macs)

    @property
    def macs_left(self) -> Stat:
        """Share of the baseline's multiply-adds that is left, percent; 100 where it has none."""
        return self._stat(
            lambda run: 100 * run.final.macs / run.baseline.macs if run.baseline.macs else 100.0
        )

    @property
    def params(self) -> Stat:
        """Parameters of the final network."""
        return self._stat(lambda run: run.final.params)

    @property
    def size(self) -> Stat:
        """Size of the final weights on disk."""
        return self._stat(lambda run: run.final.bytes)

    @property
    def seconds(self) -> Stat:
        """Wall time of the whole run."""
        return self._stat(lambda run: sum(run.seconds.values()))

    def _stat(self, value: Callable[[RunResult], float]) -> Stat:
        return Stat.of(value(run) for run in self.runs)


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    Attributes:
        runs: in the order given.
        lines: the same runs, in the order in which their lines' first runs were given.
    """

    runs: tuple[RunResult, ...]
    lines: tuple[Line, ...]


def compare(work_dirs: Sequence[str | os.PathLike[str]]) -> Comparison:
    """Set finished runs side by side. Runs with the same config hash become one line.

    Args:
        work_dirs: the runs' work directories; one given twice counts once.

    Raises:
        EasyPrunerError: no directory is given, or some are missing, unfinished or damaged; the
            message lists all of them.
    """
    if not work_dirs:
        raise EasyPrunerError('there is nothing to compare; give work directories of finished runs')
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
