"""What a finished run leaves for reports: RunResult, kept as summary.json in the work directory."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from easypruner.base.files import write_json
from easypruner.base.json_fields import Field, read_json
from easypruner.errors import EasyPrunerError

SUMMARY = 'summary.json'
BASELINE = 'baseline'
PRUNED = 'pruned'


@dataclass(frozen=True)
class Row:
    """The network at one point of a run.

    Attributes:
        name: the point: 'baseline', 'sparse', 'pruned' (right after the cut), 'calibrated',
            'finetuned', or a name of a plugin's own stage.
        accuracy: top-1 on the validation data, in percent.
        macs: multiply-adds of one forward of one example.
        params: number of parameters.
        bytes: size of the weights on disk.
    """

    name: str
    accuracy: float
    macs: int
    params: int
    bytes: int


@dataclass(frozen=True)
class BudgetResult:
    """A limit and what came of it; asked, delivered and spread are in the same unit.

    Attributes:
        kind: the limit's name.
        asked: the limit.
        delivered: what the masks amount to.
        spread: how far delivered strayed when it was measured (median absolute deviation); None
            where it is exact.
        parts: where several limits were kept to, each of them; the values above are then those of
            the first.
    """

    kind: str
    asked: float
    delivered: float
    spread: float | None = None
    parts: tuple[BudgetResult, ...] = ()

    @property
    def each(self) -> tuple[BudgetResult, ...]:
        """Every limit that was kept to."""
        return self.parts or (self,)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> BudgetResult:
        """Build the result from what ``dataclasses.asdict`` made of one."""
        parts = tuple(cls.from_dict(part) for part in value['parts'])
        return cls(**{**value, 'parts': parts})


@dataclass(frozen=True)
class ScaleStats:
    """How far the removed batch-norm scales came down: statistics of their magnitudes."""

    count: int
    median: float
    p99: float
    largest: float


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Attributes:
        name: of the run's config.
        work_dir: where the run lies; not part of the summary, which may move with its folder.
        rows: the points of the run in order; the last is its outcome.
        budget: the limit or limits, None where the mask source has none.
        seed: of the run.
        config_hash: of the config without its seed and work directory: runs that share it are
            repetitions of each other.
        versions: package -> version.
        seconds: stage -> wall time.
        scales: the removed batch-norm scales right before the cut, None where there are none.
        warnings: what the reader of the result should know.
        parts: part of the config ('model', 'data', 'schedule', ...) -> hash; runs whose parts
            differ are not comparable like for like. Empty where unknown.
    """

    name: str
    work_dir: Path
    rows: tuple[Row, ...]
    budget: BudgetResult | None
    seed: int
    config_hash: str
    versions: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    scales: ScaleStats | None = None
    warnings: tuple[str, ...] = ()
    parts: Mapping[str, str] = field(default_factory=dict)

    @property
    def baseline(self) -> Row:
        """The row named 'baseline', else the first."""
        return next((row for row in self.rows if row.name == BASELINE), self.rows[0])

    @property
    def final(self) -> Row:
        """The last row."""
        return self.rows[-1]

    @property
    def cut(self) -> tuple[Row, Row] | None:
        """The rows just before and right after the last cut; None where they are not known."""
        places = [i for i, row in enumerate(self.rows) if row.name == PRUNED and i > 0]
        return (self.rows[places[-1] - 1], self.rows[places[-1]]) if places else None

    def to_json(self) -> dict[str, Any]:
        """Return the content of summary.json."""
        return {
            'name': self.name,
            'rows': [dataclasses.asdict(row) for row in self.rows],
            'budget': dataclasses.asdict(self.budget) if self.budget else None,
            'seed': self.seed,
            'config_hash': self.config_hash,
            'parts': dict(self.parts),
            'versions': dict(self.versions),
            'seconds': dict(self.seconds),
            'scales': dataclasses.asdict(self.scales) if self.scales else None,
            'warnings': list(self.warnings),
        }

    @classmethod
    def from_json(cls, value: Any, work_dir: str | os.PathLike[str]) -> RunResult:
        """Build the result from the parsed content of ``work_dir``'s summary.json.

        Raises:
            EasyPrunerError: a field is missing or of the wrong kind; the message names it.
        """
        folder = Path(work_dir)
        summary = Field(value, str(folder / SUMMARY))
        rows = tuple(_read_row(row) for row in summary['rows'].items())
        if not rows:
            summary['rows'].fail('one row at the least')
        name, warnings = summary.get('name'), summary.get('warnings')
        budget, scales = summary.get('budget'), summary.get('scales')
        parts = summary.get('parts')
        return cls(
            name=name.text() if name else folder.resolve().name,
            work_dir=folder,
            rows=rows,
            budget=_read_budget(budget) if budget else None,
            seed=summary['seed'].integer(),
            config_hash=summary['config_hash'].text(),
            versions={key: entry.text() for key, entry in summary['versions'].entries()},
            seconds={key: entry.number(0) for key, entry in summary['seconds'].entries()},
            scales=_read_scales(scales) if scales else None,
            warnings=tuple(warning.text() for warning in warnings.items()) if warnings else (),
            parts={key: entry.text() for key, entry in parts.entries()} if parts else {},
        )

    def save(self) -> Path:
        """Write summary.json into the work directory, whole or not at all; return its path."""
        path = self.work_dir / SUMMARY
        write_json(path, self.to_json())
        return path

    @classmethod
    def load(cls, work_dir: str | os.PathLike[str]) -> RunResult:
        """Read the summary.json of ``work_dir``.

        Raises:
            EasyPrunerError: no such folder, no summary in it (the run is not finished), or a
                damaged or foreign one; the message names the field.
        """
        folder = Path(work_dir)
        path = folder / SUMMARY
        if not folder.is_dir():
            raise EasyPrunerError(
                f'there is no work directory {str(folder)!r}; give the folder of a finished run'
            )
        if not path.is_file():
            raise EasyPrunerError(
                f'{str(folder)!r} has no {SUMMARY}: the run has not come to its Report stage, or '
                'this is not a work directory; finish the run with --resume, or leave it out'
            )
        return cls.from_json(read_json(path).value, folder)


@dataclass(frozen=True)
class Artifact:
    """What a plugin adds to a report: a table, or a picture it has written.

    Attributes:
        name: the heading.
        columns: the table's column headings.
        rows: the table's cells, one string for each column.
        figure: path of a picture; then columns and rows stay empty.

    Raises:
        EasyPrunerError: neither or both of table and figure, or a row of another length.

    >>> Artifact('Latency', columns=('run', 'ms'), rows=(('l1', '3.1'), ('random', '3.0'))).name
    'Latency'
    """

    name: str
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    figure: Path | None = None

    def __post_init__(self) -> None:
        if bool(self.columns) == (self.figure is not None):
            raise EasyPrunerError(
                f'artifact {self.name!r} must have either columns (and rows) or a figure'
            )
        for row in self.rows:
            if len(row) != len(self.columns):
                raise EasyPrunerError(
                    f'artifact {self.name!r} has a row of {len(row)} cells; '
                    f'it has {len(self.columns)} columns'
                )


def _read_row(row: Field) -> Row:
    return Row(
        name=row['name'].text(),
        accuracy=row['accuracy'].number(0, 100),
        macs=row['macs'].integer(0),
        params=row['params'].integer(0),
        bytes=row['bytes'].integer(0),
    )


def _read_budget(budget: Field) -> BudgetResult:
    spread, parts = budget.get('spread'), budget.get('parts')
    return BudgetResult(
        kind=budget['kind'].text(),
        asked=budget['asked'].number(),
        delivered=budget['delivered'].number(),
        spread=spread.number(0) if spread else None,
        parts=tuple(_read_budget(part) for part in parts.items()) if parts else (),
    )


def _read_scales(scales: Field) -> ScaleStats:
    return ScaleStats(
        count=scales['count'].integer(1),
        median=scales['median'].number(0),
        p99=scales['p99'].number(0),
        largest=scales['largest'].number(0),
    )
