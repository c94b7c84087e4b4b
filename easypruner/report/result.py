"""The result of a run, saved as summary.json in its work directory, and parts of it."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from easypruner.base.files import file_hash, write_json
from easypruner.base.json_fields import Field, content_hash, read_json
from easypruner.errors import EasyPrunerError

SUMMARY = 'summary.json'
BASELINE = 'baseline'
PRUNED = 'pruned'
CALIBRATED = 'calibrated'


@dataclass(frozen=True)
class Row:
    """The accuracy and cost of the network at one point of a run.

    Attributes:
        name: the name of the point, such as 'baseline', 'sparse', 'pruned' (right after the cut),
            'calibrated' or 'finetuned'.
        accuracy: the top-1 accuracy on the validation data, in percent.
        macs: the multiply-adds of one forward pass of one sample.
        params: the number of parameters.
        bytes: the size of the weights on disk.
    """

    name: str
    accuracy: float
    macs: int
    params: int
    bytes: int


@dataclass(frozen=True)
class NetworkCost:
    """The cost of a network.

    Attributes:
        macs: the multiply-adds of one forward pass of one sample.
        params: the number of parameters.
        bytes: the size of the weights on disk.
    """

    macs: int
    params: int
    bytes: int


@dataclass(frozen=True)
class BudgetResult:
    """A limit, and the value that the masks deliver, in the same unit.

    Attributes:
        kind: the name of the limit.
        asked: the limit.
        delivered: the value of the pruned network.
        spread: the uncertainty of ``delivered`` if it was measured; None if it is
            exact.
        where: what a measured value depends on, such as the runtime and the machine.
        parts: the results of all limits if there are several. The values above are then those of
            the first limit.
    """

    kind: str
    asked: float
    delivered: float
    spread: float | None = None
    where: str = ''
    parts: tuple[BudgetResult, ...] = ()

    @property
    def each(self) -> tuple[BudgetResult, ...]:
        """The result of each limit."""
        return self.parts or (self,)


@dataclass(frozen=True)
class ScaleStats:
    """Statistics of the magnitudes of removed batch-norm scales."""

    count: int
    median: float
    p99: float
    largest: float


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Attributes:
        name: the name of the config.
        work_dir: the work directory; it is not a part of summary.json, so that it can be moved.
        rows: the points of the run in order; the last row is the final result.
        budget: the limits and what was delivered; None if the mask source has no budget.
        seed: the seed of the run.
        config_hash: a hash of the config without its seed and work directory. Runs with the same
            hash are repetitions of each other.
        versions: package -> version.
        seconds: stage -> wall time.
        scales: statistics of the removed batch-norm scales right before the cut; None if there are
            none.
        warnings: messages for the reader of the result.
        original: the cost of the original network, to which all remaining shares refer; None if it
            is not known. Then it is that of the baseline.
        parts: part of the config ('model', 'data', 'schedule', ...) -> hash. Runs with different
            hashes differ in this part.
        method_hash: a hash of what the results depend on, without the seed and the paths of
            checkpoints; '' if it is not known.
        epochs: the epochs of all training stages; None if they are not known.
        trained_epochs: those after weights were drawn anew, which the final weights are trained
            for; None if they are not known.
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
    original: NetworkCost | None = None
    method_hash: str = ''
    epochs: int | None = None
    trained_epochs: int | None = None

    @property
    def whole(self) -> NetworkCost:
        """The cost to which remaining shares refer."""
        row = self.baseline
        return self.original or NetworkCost(row.macs, row.params, row.bytes)

    @property
    def baseline(self) -> Row:
        """The row called 'baseline', or the first row if there is none."""
        return next((row for row in self.rows if row.name == BASELINE), self.rows[0])

    @property
    def final(self) -> Row:
        """The last row."""
        return self.rows[-1]

    @property
    def cut(self) -> tuple[Row, Row] | None:
        """The rows right before and right after the last cut; None if they are not known."""
        pairs = itertools.pairwise(self.rows)
        return next((pair for pair in reversed(list(pairs)) if pair[1].name == PRUNED), None)

    @property
    def calibrated(self) -> Row | None:
        """The row after batch norms were recalibrated, behind the last cut; None if there is none.

        The statistics of batch norms are those of the network before the cut, so that the accuracy
        right after the cut says little about what is left.
        """
        names = [row.name for row in self.rows]
        if PRUNED not in names:
            return None
        last = len(names) - 1 - names[::-1].index(PRUNED)
        return next((row for row in self.rows[last:] if row.name == CALIBRATED), None)

    def to_json(self) -> dict[str, Any]:
        """Return the content of summary.json."""
        content = dataclasses.asdict(self)
        del content['work_dir']
        return content | {'rows': list(content['rows']), 'warnings': list(self.warnings)}

    @classmethod
    def from_json(cls, value: Any, work_dir: str | os.PathLike[str]) -> RunResult:
        """Build a result from the parsed content of the summary.json in ``work_dir``.

        Raises:
            EasyPrunerError: a field is missing or has a wrong value, or the content does not have
                the hash in it; the message names the field.
        """
        folder = Path(work_dir)
        summary = Field(value, str(folder / SUMMARY))
        rows = tuple(_read_row(row) for row in summary['rows'].items())
        if not rows:
            summary['rows'].fail('at least one row')
        name, warnings = summary.get('name'), summary.get('warnings')
        budget, scales = summary.get('budget'), summary.get('scales')
        parts, original = summary.get('parts'), summary.get('original')
        method, epochs = summary.get('method_hash'), summary.get('epochs')
        trained = summary.get('trained_epochs')
        result = cls(
            name=name.text() if name else folder.resolve().name,
            work_dir=folder,
            rows=rows,
            budget=read_budget(budget) if budget else None,
            seed=summary['seed'].integer(),
            config_hash=summary['config_hash'].text(),
            versions={key: entry.text() for key, entry in summary['versions'].entries()},
            seconds={key: entry.number(0) for key, entry in summary['seconds'].entries()},
            scales=_read_scales(scales) if scales else None,
            warnings=tuple(warning.text() for warning in warnings.items()) if warnings else (),
            parts={key: entry.text() for key, entry in parts.entries()} if parts else {},
            original=NetworkCost(**_read_costs(original)) if original else None,
            method_hash=method.text() if method else '',
            epochs=epochs.integer(0) if epochs else None,
            trained_epochs=trained.integer(0) if trained else None,
        )
        # Summaries of other programs have no hash.
        found = summary.get('hash')
        if found is not None and found.value != _hash_of(summary.value):
            found.fail('the hash of the content, which was edited or damaged')
        return result

    def save(self) -> Path:
        """Write summary.json into the work directory atomically, and return its path."""
        path = self.work_dir / SUMMARY
        content = self.to_json()
        write_json(path, {**content, 'hash': _hash_of(content)})
        return path

    @classmethod
    def load(cls, work_dir: str | os.PathLike[str]) -> RunResult:
        """Read the summary.json in ``work_dir``.

        Raises:
            EasyPrunerError: the folder does not exist, has no summary because the run is not
                finished, or has a damaged one.
        """
        folder = Path(work_dir)
        path = folder / SUMMARY
        if not folder.is_dir():
            raise EasyPrunerError(
                f'there is no work directory {str(folder)!r}; give the folder of a finished run'
            )
        if not path.is_file():
            raise EasyPrunerError(_why_no_summary(folder))
        _check_written(path)
        return cls.from_json(read_json(path).value, folder)


@dataclass(frozen=True)
class Artifact:
    """A table, or a picture that a plugin has written, for a report.

    Attributes:
        name: the heading.
        columns: the headings of the table's columns.
        rows: the cells of the table, one string for each column.
        figure: the path of a picture; columns and rows are then empty.

    Raises:
        EasyPrunerError: there is neither a table nor a picture, or both, or a row has another
            length than the headings.

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
                f'artifact {self.name!r} has columns and a figure, or neither; expected one of them'
            )
        for row in self.rows:
            if len(row) != len(self.columns):
                raise EasyPrunerError(
                    f'artifact {self.name!r} has a row of {len(row)} cells; expected '
                    f'{len(self.columns)} cells, one for each column'
                )


def _hash_of(content: Mapping[str, Any]) -> str:
    """Return the hash of a summary without its times, so that equal results have equal hashes."""
    timeless = {key: content[key] for key in content if key not in ('hash', 'seconds')}
    return content_hash(timeless)


def _why_no_summary(folder: Path) -> str:
    """Return what to do about a folder without a summary, which may be that of a whole study."""
    for pattern in ('*', 'runs/*'):
        for below in folder.glob(f'{pattern}/{SUMMARY}'):
            return (
                f'{str(folder)!r} has runs, and is not the folder of one; give theirs, as in '
                f'{below.parents[1]!s}/*'
            )
    return (
        f'{str(folder)!r} has no {SUMMARY}, because its run has not finished the Report stage, or '
        'because it is not a work directory; finish the run with --resume, or leave the folder out'
    )


def _check_written(path: Path) -> None:
    """Raise EasyPrunerError if a summary is not the one that the stage Report has written.

    The state of that stage has the hash of the whole file. A copy without the stages is not
    checked.
    """
    states = path.parent.glob('[0-9]*_*/state.json')
    latest_first = sorted(states, key=_number, reverse=True)
    written = next(filter(None, map(_hash_in, latest_first)), None)
    if written is not None and written != file_hash(path):
        raise EasyPrunerError(
            f'{str(path)!r} has changed since the run wrote it; write it again with --resume, or '
            'leave the folder out'
        )


def _number(state: Path) -> int:
    number = state.parent.name.partition('_')[0]
    return int(number) if number.isdecimal() else -1


def _hash_in(state: Path) -> str | None:
    """Return the hash of summary.json in a state; None if the stage has not written it."""
    try:
        found = json.loads(state.read_bytes())['results'].get(SUMMARY)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return found if isinstance(found, str) else None


def _read_row(row: Field) -> Row:
    return Row(row['name'].text(), row['accuracy'].number(0, 100), **_read_costs(row))


def _read_costs(entry: Field) -> dict[str, int]:
    return {name: entry[name].integer(0) for name in ('macs', 'params', 'bytes')}


def read_budget(budget: Field) -> BudgetResult:
    """Read a result that ``dataclasses.asdict`` has converted."""
    spread, parts, where = (budget.get(name) for name in ('spread', 'parts', 'where'))
    return BudgetResult(
        kind=budget['kind'].text(),
        asked=budget['asked'].number(),
        delivered=budget['delivered'].number(),
        spread=spread.number(0) if spread else None,
        where=where.text() if where else '',
        parts=tuple(read_budget(part) for part in parts.items()) if parts else (),
    )


def _read_scales(scales: Field) -> ScaleStats:
    magnitudes = {name: scales[name].number(0) for name in ('median', 'p99', 'largest')}
    return ScaleStats(scales['count'].integer(1), **magnitudes)
