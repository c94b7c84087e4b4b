"""Pictures in files: those of comparisons as PNG and SVG, and files put into pages."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from easypruner.errors import EasyPrunerError
from easypruner.report.comparison import Comparison, Line, distinct_baselines
from easypruner.report.markup import escape
from easypruner.report.result import Row, RunResult
from easypruner.report.times import RunTimes

_LARGEST = 2**23
_TYPES = {'.png': 'image/png', '.svg': 'image/svg+xml', '.jpg': 'image/jpeg'}


@dataclass(frozen=True)
class CostAxis:
    """A cost that accuracy is drawn against.

    Attributes:
        label: the label of the axis.
        file: the end of the picture's name.
        values: for each line, the cost of each of its runs; None for a line that has none.
        whole: the costs of the unpruned networks, and their accuracies.
    """

    label: str
    file: str
    values: tuple[tuple[float, ...] | None, ...]
    whole: tuple[tuple[float, float], ...]


def cost_axes(comparison: Comparison) -> list[CostAxis]:
    """Return the costs of compared runs: MACs, params and the measured times in each runtime."""
    rows = distinct_baselines(comparison.runs)

    def of_rows(label: str, file: str, cost: Callable[[Row], int]) -> CostAxis:
        values = tuple(tuple(float(cost(r.final)) for r in x.runs) for x in comparison.lines)
        return CostAxis(label, file, values, tuple((cost(r), r.accuracy) for r in rows))

    return [
        of_rows('MACs', 'macs', lambda row: row.macs),
        of_rows('params', 'params', lambda row: row.params),
        *_time_axes(comparison.lines),
    ]


def _time_axes(lines: Sequence[Line]) -> Iterator[CostAxis]:
    times = {run.work_dir: _times_of(run) for line in lines for run in line.runs}
    runtimes = dict.fromkeys(name for known in times.values() for name in known)
    for number, runtime in enumerate(runtimes):
        values: list[tuple[float, ...] | None] = []
        before = []
        for line in lines:
            known = [times[run.work_dir].get(runtime) for run in line.runs]
            found = [pair for pair in known if pair is not None]
            values.append(tuple(after for _, after in found) if len(found) == len(known) else None)
            before += [original for original, _ in found]
        rows = distinct_baselines(run for line in lines for run in line.runs)
        whole = (fmean(before), fmean(row.accuracy for row in rows))
        yield CostAxis(f'ms in {runtime}', f'time_{number}', tuple(values), (whole,))


def _times_of(run: RunResult) -> dict[str, tuple[float, float]]:
    try:
        return {t.runtime: (t.before, t.after) for t in RunTimes.load(run.work_dir).times}
    except EasyPrunerError:
        return {}


def draw_pictures(comparison: Comparison, folder: Path) -> list[Path]:
    """Draw accuracy against each cost into a folder, as PNG and as SVG; return the paths."""
    # matplotlib takes half a second to import, and errors should be reported before that.
    from easypruner.report.plots import Point, draw_accuracy, save_figure

    written = []
    for axis in cost_axes(comparison):
        points = [
            Point(line.name, values, tuple(run.final.accuracy for run in line.runs))
            for line, values in zip(comparison.lines, axis.values, strict=True)
            if values is not None
        ]
        costs, accuracies = zip(*axis.whole, strict=True)
        figure = draw_accuracy(points, Point('baseline', costs, accuracies), axis.label)
        for ending in ('png', 'svg'):
            written.append(folder / f'accuracy_{axis.file}.{ending}')
            save_figure(figure, written[-1])
    return written


def embedded(path: Path, name: str) -> str:
    """Return a picture as a part of a page, under a heading; '' if there is no such file."""
    kind = _TYPES.get(path.suffix.lower())
    try:
        if kind is None or not path.is_file() or path.stat().st_size > _LARGEST:
            return ''
        content = base64.b64encode(path.read_bytes()).decode()
    except OSError:
        return ''
    source = f'data:{kind};base64,{content}'
    return f'<h3>{escape(name)}</h3><img alt="{escape(name)}" src="{source}">'
