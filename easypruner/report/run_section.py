"""The section of one run in a page: table, curves, channels, scales, masks, and how to load it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from easypruner.errors import EasyPrunerError
from easypruner.report import charts, text
from easypruner.report.details import FrozenChannels, LayerWidth, RunDetails, ScaleCounts
from easypruner.report.markup import escape, html_table, items, paragraphs
from easypruner.report.pictures import embedded
from easypruner.report.result import RunResult
from easypruner.report.stage_files import (
    Curve,
    agreement,
    read_curves,
    stage_masks,
)
from easypruner.report.times import RunTimes

_ROWS = ('', 'accuracy', 'change', 'MACs', 'left', 'params', 'size')


def run_section(run: RunResult, name: str) -> str:
    """Return the section of a run as HTML, folded.

    Args:
        run: the run.
        name: the name of its method.
    """
    parts: list[str] = [_rows(run)]
    try:
        parts += [_times(run), *_details(run)]
    except EasyPrunerError as error:
        parts.append(paragraphs([str(error)], 'note'))
    parts[1:1] = [*_curves(read_curves(run.work_dir)), *_stages_agree(run)]
    if run.warnings:
        parts.append(f'<h3>Warnings</h3>{items(run.warnings)}')
    parts += [_loading(run), _origin(run)]
    heading = f'{name}, seed {run.seed}: {run.final.accuracy:.2f} %'
    return f'<details><summary>{escape(heading)}</summary>{"".join(parts)}</details>'


def _rows(run: RunResult) -> str:
    base, whole = run.baseline, run.whole
    rows = [
        (
            row.name,
            f'{row.accuracy:.2f} %',
            '' if row is base else text.format_change(row.accuracy - base.accuracy),
            text.format_count(row.macs),
            text.format_share(row.macs, whole.macs),
            text.format_count(row.params),
            text.format_size(row.bytes),
        )
        for row in run.rows
    ]
    budgets = [text.describe_budget(budget) for budget in run.budget.each] if run.budget else []
    return html_table(_ROWS, rows) + paragraphs(budgets, 'soft')


def _times(run: RunResult) -> str:
    times = RunTimes.load(run.work_dir)
    if not times.times:
        return ''
    rows = [
        (time.runtime, f'{time.before:.3g} ms', f'{time.after:.3g} ms', time.left)
        for time in times.times
    ]
    columns = ('runtime', 'original', 'final', 'left')
    table = html_table(columns, rows)
    return f'<h3>Time of a pass</h3>{table}{paragraphs(times.facts, "soft")}'


def _curves(curves: Sequence[Curve]) -> Iterator[str]:
    if not curves:
        return
    starts = [0, *itertools.accumulate(curve.epochs for curve in curves)]
    marks = starts[1:-1]
    drawn = []
    for label, kind in (('loss', 'loss'), ('validation accuracy, %', 'accuracy')):
        series = [
            charts.Series(
                curve.stage,
                [start + epoch for epoch in sorted(getattr(curve, kind))],
                [getattr(curve, kind)[epoch] for epoch in sorted(getattr(curve, kind))],
                number,
            )
            for number, (curve, start) in enumerate(zip(curves, starts, strict=False))
            if getattr(curve, kind)
        ]
        if series:
            drawn.append(f'<figure>{charts.lines(series, "epoch", label, marks)}</figure>')
    names = [f'{curve.stage} ({text.plural(curve.epochs, "epoch")})' for curve in curves]
    yield f'<h3>Training</h3>{legend(names)}<div class="charts">{"".join(drawn)}</div>'


def legend(names: Sequence[str], numbers: Sequence[int] = ()) -> str:
    """Return a legend of the marks that charts give to series: those of their numbers, or order."""
    entries = ''.join(
        f'<li><svg viewBox="0 0 14 14" aria-hidden="true">{charts.marker(7, 7, number)}</svg>'
        f'{escape(name)}</li>'
        for number, name in zip(numbers or range(len(names)), names, strict=True)
    )
    return f'<ul class="legend">{entries}</ul>'


def _details(run: RunResult) -> Iterator[str]:
    details = RunDetails.load(run.work_dir)
    if details.layers:
        yield f'<h3>Channels of each layer</h3>{_bars(details.layers)}'
    else:
        yield embedded(run.work_dir / 'channels.png', 'Channels of each layer')
    if details.scales is not None:
        yield _scales(details.scales)
    else:
        yield embedded(run.work_dir / 'scales.png', 'Scales of batch norms')
    yield _frozen(details.frozen)


def _bars(layers: Sequence[LayerWidth]) -> str:
    widest = max((layer.kept + layer.removed for layer in layers), default=1) or 1
    rows = []
    for layer in layers:
        whole = layer.kept + layer.removed
        kept, removed = (100 * part / widest for part in (layer.kept, layer.removed))
        rows.append(
            f'<span>{escape(layer.name)}</span><span class="bar"><i class="kept" style="width:'
            f'{kept:.1f}%"></i><i class="removed" style="width:{removed:.1f}%"></i></span>'
            f'<span class="n">{layer.kept} of {whole}</span>'
        )
    return f'<div class="bars">{"".join(rows)}</div>'


def _scales(scales: ScaleCounts) -> str:
    pictures = (
        ('before the sparsity stage', scales.before_kept, scales.before_removed),
        ('after it, before the cut', scales.after_kept, scales.after_removed),
    )
    figures = ''.join(
        f'<figure>{charts.histogram(scales.edges, kept, removed)}<figcaption>{caption}: '
        f'{sum(kept)} kept (blue), {sum(removed)} removed (orange)</figcaption></figure>'
        for caption, kept, removed in pictures
    )
    return f'<h3>Scales of kept and removed channels</h3><div class="charts">{figures}</div>'


def _frozen(frozen: Sequence[FrozenChannels]) -> str:
    if not frozen:
        return ''
    rows = [(entry.reason, entry.example, entry.channels) for entry in frozen]
    table = html_table(('reason', 'such as', 'channels'), rows, left=2)
    return f'<h3>Frozen, and why</h3>{table}'


def _stages_agree(run: RunResult) -> Iterator[str]:
    found = stage_masks(run.work_dir)
    rows = []
    for (before, one), (after, other) in itertools.pairwise(found):
        agreed = agreement(one, other)
        if agreed is not None:
            rows.append((before, after, f'{agreed.share:.1%}', f'{agreed.chance:.1%}'))
    if rows:
        table = html_table(('masks of', 'masks of', 'agree', 'by chance'), rows, left=2)
        yield f'<h3>Masks from stage to stage</h3>{table}'


def _loading(run: RunResult) -> str:
    folder = run.work_dir
    if not (folder / 'pruned.pth').is_file():
        return ''
    lines = [
        'from mmengine.config import Config',
        'from mmengine.runner import Runner',
        '',
        f'config = Config.fromfile({str(folder / "pruned_config.py")!r})',
        'Runner.from_cfg(config).test()',
    ]
    if (folder / 'architecture.json').is_file():
        lines += [
            '',
            '# Or without MMEngine, where build() makes the original network:',
            'import easypruner',
            f'model = easypruner.load_pruned(build, {str(folder / "pruned.pth")!r},',
            f'                               {str(folder / "architecture.json")!r})',
        ]
    code = '\n'.join(map(escape, lines))
    return f'<h3>How to load it</h3><pre><code>{code}</code></pre>'


def _origin(run: RunResult) -> str:
    versions = ', '.join(f'{name} {version}' for name, version in run.versions.items())
    return paragraphs([f'{run.work_dir}; {versions}'], 'soft')
