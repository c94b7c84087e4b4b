"""The page of an answer, report.html: methods, their differences, and a section for each run."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from easypruner.report import charts, text
from easypruner.report.answer import TITLES, Answer, facts_of, methods_table
from easypruner.report.comparison import Comparison, Line, Stat
from easypruner.report.differences import COLUMNS, Difference, choose_reference, explain
from easypruner.report.markup import escape, html_table, items, paragraphs
from easypruner.report.page import Section, make_page
from easypruner.report.pictures import CostAxis, cost_axes, embedded
from easypruner.report.recipes import read_recipe, recipe_changes
from easypruner.report.result import Artifact
from easypruner.report.run_section import legend, run_section
from easypruner.report.stage_files import MASKS, agreement, read_masks

_MOST_CHANGES = 200


def make_report(answer: Answer, differences: dict[str, list[Difference]]) -> str:
    """Return the page as HTML."""
    comparison = answer.comparison
    header, rows = methods_table(comparison)
    table = html_table(header, rows, left=1 + ('budget' in header)) if rows else ''
    missing = [(run.name, run.status, run.reason) for run in answer.missing]
    columns = ('run', 'status', 'reason')
    sections = [
        Section('Methods', table + paragraphs(facts_of(comparison), 'soft') + _charts(comparison)),
        *(_differences(name, found) for name, found in differences.items()),
        Section('Before you compare', paragraphs(answer.notes, 'note')),
        Section('Runs without a result', html_table(columns, missing, 3) if missing else ''),
        Section('Recipes', _recipes(comparison, answer.reference)),
        Section('Agreement of masks', _agreements(comparison)),
        *(Section(artifact.name, _artifact(artifact)) for artifact in answer.artifacts),
        Section('Runs', _runs(comparison)),
    ]
    return make_page(answer.title, '', sections)


def _differences(name: str, found: Sequence[Difference]) -> Section:
    table = html_table(COLUMNS, [entry.cells() for entry in found], left=2)
    by_verdict: dict[str, list[str]] = {}
    for entry in found:
        by_verdict.setdefault(entry.paired.verdict, []).append(entry.line.name)
    verdicts = [f'{verdict}: {"; ".join(names)}' for verdict, names in by_verdict.items()]
    methods = dict.fromkeys(entry.reference.method or entry.reference.name for entry in found)
    several = len({entry.reference.group for entry in found}) > 1
    against = f'Against {", ".join(methods)}{" at the same budget" if several else ""}:'
    intro = paragraphs([against]) + items(verdicts)
    return Section(
        f'Differences {TITLES[name]}', intro + table + paragraphs(explain(list(found)), 'soft')
    )


def _charts(comparison: Comparison) -> str:
    if not comparison.lines:
        return ''
    figures = ''.join(
        f'<figure>{_chart(comparison, axis)}</figure>' for axis in cost_axes(comparison)
    )
    level = 'The dashed line is the mean accuracy of the unpruned networks.'
    names = dict(zip(_colours(comparison), map(_method, comparison.lines), strict=True))
    marks = legend(list(names.values()), list(names))
    return f'{marks}<div class="charts">{figures}</div>{paragraphs([level], "soft")}'


def _chart(comparison: Comparison, axis: CostAxis) -> str:
    series = []
    numbers = _colours(comparison)
    for number, line, values in zip(numbers, comparison.lines, axis.values, strict=True):
        if values is None:
            continue
        cost, final = Stat.of(values), line.final
        accuracies = [run.final.accuracy for run in line.runs]
        series.append(charts.Series(line.name, values, accuracies, number, small=True))
        series.append(
            charts.Series(
                f'{line.name}: {final.text()} %',
                [cost.mean],
                [final.mean],
                number,
                errors=[final.std or 0.0],
                widths=[cost.std or 0.0],
            )
        )
    level = fmean(accuracy for _, accuracy in axis.whole)
    return charts.scatter(series, axis.label, 'accuracy, %', level)


def _colours(comparison: Comparison) -> list[int]:
    """Return a number for each line: that of its method, which is the same for all budgets."""
    methods = list(map(_method, comparison.lines))
    order = list(dict.fromkeys(methods))
    return [order.index(method) for method in methods]


def _method(line: Line) -> str:
    return line.method or line.name


def _recipes(comparison: Comparison, reference: str | None) -> str:
    lines = comparison.lines
    if len(lines) < 2:
        return ''
    chosen = choose_reference(lines, reference)
    other = read_recipe(chosen.runs[0].work_dir)
    parts = [paragraphs([f'What each config has that {chosen.name} has not, and the reverse.'])]
    for line in lines:
        recipe = read_recipe(line.runs[0].work_dir)
        if line is chosen or not recipe or not other:
            continue
        changes = recipe_changes(recipe, other)
        rows = [(c.key, c.before or '-', c.after or '-') for c in changes[:_MOST_CHANGES]]
        more = len(changes) - len(rows)
        heading = f'{line.name}: {text.plural(len(changes), "difference")}'
        body = html_table(('setting', chosen.name, line.name), rows, left=3)
        body += paragraphs([f'{more} more are left out.'] if more else [])
        parts.append(f'<details><summary>{escape(heading)}</summary>{body}</details>')
    return ''.join(parts) if len(parts) > 1 else ''


def _agreements(comparison: Comparison) -> str:
    masks = {run.work_dir: read_masks(run.work_dir / MASKS) for run in comparison.runs}
    rows = []
    for number, one in enumerate(comparison.lines):
        for other in comparison.lines[number + 1 :]:
            if one.group != other.group:
                continue
            pairs = [
                agreement(first, second)
                for a in one.runs
                for b in other.runs
                if a.seed == b.seed
                and (first := masks[a.work_dir]) is not None
                and (second := masks[b.work_dir]) is not None
            ]
            known = [pair for pair in pairs if pair is not None]
            if known:
                share, chance = (fmean(getattr(p, k) for p in known) for k in ('share', 'chance'))
                rows.append((one.name, other.name, f'{share:.1%}', f'{chance:.1%}'))
    if not rows:
        return ''
    note = 'The share of units that both methods keep or both remove, at the same seed, and what '
    note += 'random masks of the same widths would have.'
    columns = ('method', 'method', 'agree', 'by chance')
    return html_table(columns, rows, left=2) + paragraphs([note], 'soft')


def _artifact(artifact: Artifact) -> str:
    if artifact.figure is None:
        return html_table(artifact.columns, artifact.rows)
    return embedded(artifact.figure, '') or paragraphs([str(artifact.figure)])


def _runs(comparison: Comparison) -> str:
    return ''.join(run_section(run, line.name) for line in comparison.lines for run in line.runs)
