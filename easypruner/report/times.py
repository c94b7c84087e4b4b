"""The times of a run's networks in runtimes, saved as times.json in its work directory."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from easypruner.base.files import write_json
from easypruner.base.json_fields import Field, read_json
from easypruner.report.result import RunResult
from easypruner.report.text import format_share

TIMES = 'times.json'
_IN_NOISE = 'in noise'
_FIELDS = ('before', 'after', 'ratio', 'low', 'high')


@dataclass(frozen=True)
class RunTime:
    """The time of a pass in a runtime, of the original network and of the final one of a run.

    Attributes:
        runtime: the name of the runtime.
        before: the milliseconds of the original network.
        after: those of the final network.
        ratio: the share of the time that is left.
        low: the lower end of its interval.
        high: the upper end.
    """

    runtime: str
    before: float
    after: float
    ratio: float
    low: float
    high: float

    @property
    def left(self) -> str:
        """The share of the time that is left, if noise does not explain the difference."""
        return _IN_NOISE if self.low <= 1 <= self.high else format_share(self.ratio, 1)


@dataclass(frozen=True)
class RunTimes:
    """The times of a run's networks.

    Attributes:
        times: one for each runtime.
        facts: lines about the measurement: the machine, and what was not measured.
    """

    times: tuple[RunTime, ...] = ()
    facts: tuple[str, ...] = ()

    @property
    def warnings(self) -> list[str]:
        """A line for each runtime in which the final network is slower than the original one."""
        return [
            f'in {time.runtime} the final network takes {time.left} of the time of the original '
            f'one; keep to widths that are fast there: graph=dict(target={time.runtime!r})'
            for time in self.times
            if time.low > 1
        ]

    def columns(self) -> list[str]:
        """Return the headings of the columns in the table of the run."""
        return [heading for time in self.times for heading in (time.runtime, 'left')]

    def cells(self, result: RunResult) -> list[list[str]]:
        """Return the cells of these columns for each row; empty where the network is another."""
        original, final = _costs(result.whole), _costs(result.final)
        found = []
        for row in result.rows:
            if _costs(row) == final:
                pairs = [
                    (time.after, time.left if final != original else '') for time in self.times
                ]
            elif _costs(row) == original:
                pairs = [(time.before, '') for time in self.times]
            else:
                pairs = [(0.0, '')] * len(self.times)
            found.append(
                [cell for ms, left in pairs for cell in (f'{ms:.3g} ms' if ms else '', left)]
            )
        return found

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write times.json into a work directory atomically, and return its path."""
        path = Path(folder) / TIMES
        times = [dataclasses.asdict(time) for time in self.times]
        write_json(path, {'times': times, 'facts': list(self.facts)})
        return path

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> RunTimes:
        """Read times.json in a work directory; a run without it has no times.

        Raises:
            EasyPrunerError: the file is damaged.
        """
        path = Path(folder) / TIMES
        if not path.is_file():
            return cls()
        content = read_json(path)
        times = tuple(_read(entry) for entry in content['times'].items())
        return cls(times, tuple(fact.text() for fact in content['facts'].items()))


def _read(entry: Field) -> RunTime:
    numbers = {name: entry[name].number() for name in _FIELDS}
    return RunTime(entry['runtime'].text(), **numbers)


def _costs(row: Any) -> Sequence[int]:
    return row.macs, row.params
