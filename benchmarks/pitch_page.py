"""The tables of docs/example_pitch.md, between the marks of the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

PAGE = Path(__file__).resolve().parent.parent / 'docs' / 'example_pitch.md'
_MARKS = (
    '<!-- {} by benchmarks/pitch.py: begin -->\n\n',
    '\n<!-- {} by benchmarks/pitch.py: end -->',
)

Content = Mapping[str, Any]


def write_page(content: Content, out: Path = PAGE) -> None:
    """Write a page with the tables of some results.

    Args:
        content: the content of the results.
        out: the page; if it does not exist, the one of the docs is taken.
    """
    page = (out if out.is_file() else PAGE).read_text(encoding='utf-8')
    out.write_text(filled(page, content), encoding='utf-8')


def filled(page: str, content: Content) -> str:
    """Return a page with the tables of some results between its marks."""
    for name, table in _TABLES.items():
        begin, end = (mark.format(name) for mark in _MARKS)
        start = page.index(begin) + len(begin)
        stop = page.index(end, start - 1)
        if not content[_PARTS[name]]:
            continue
        text = '\n'.join(table(content))
        page = f'{page[:start]}{text}\n{page[stop:]}'
    return page


def _accuracy(content: Content) -> Iterator[str]:
    methods = content['methods']
    kinds = list(methods['original']['finished'])
    yield f'| | MACs | {" | ".join(kinds)} | all | all, before learning | CPU time |'
    yield '| -- ' * (len(kinds) + 5) + '|'
    for name, row in methods.items():
        method, _, share = name.partition(' | ')
        title = f'{method}, {float(share):.0%} of the MACs' if share else method
        found = row['finished']
        before = f'{fmean(row["cut"].values()):.1f}' if 'cut' in row else ''
        seconds = f'{row["cpu_seconds"]:.0f} s' if 'cpu_seconds' in row else ''
        cells = [f'{row["macs"]:.0%}', *(f'{value:.1f}' for value in found.values())]
        cells += [f'**{fmean(found.values()):.1f}**', before, seconds]
        yield f'| {title} | {" | ".join(cells)} |'
    constants = content['constants']
    yield ''
    yield (
        f'Raw pitch accuracy in percent on {constants["HELD_OUT"]} held-out sounds of each kind, '
        f'one seed; {constants["UPDATES"]} updates in all for each method. CPU time is that of '
        f'pruning, learning and measuring. {_measured(content)}'
    )


def _measured(content: Content) -> str:
    versions = ', '.join(f'{name} {version}' for name, version in content['versions'].items())
    return f'Measured on {content["machine"]}, with {versions}.'


def _times(content: Content) -> Iterator[str]:
    yield from _time_table(content['times'])
    yield ''
    yield (
        'Milliseconds of CPU time of a pass on one thread, and the share of the time of the '
        'original; the networks ran alternately. These are the cuts by L1 norm; other methods '
        'have other widths.'
    )


def _time_table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    columns = list(dict.fromkeys((row['runtime'], row['batch']) for row in rows))
    yield '| | ' + ' | '.join(f'{runtime}, batch of {batch}' for runtime, batch in columns) + ' |'
    yield '| -- ' * (1 + len(columns)) + '|'
    for network in dict.fromkeys(row['network'] for row in rows):
        own = {(row['runtime'], row['batch']): row for row in rows if row['network'] == network}
        cells = (_time(own[column]) if column in own else '' for column in columns)
        yield f'| {_title(network)} | {" | ".join(cells)} |'


def _title(network: str) -> str:
    return network if network == 'original' else f'{float(network):.0%} of the MACs'


def _time(row: Mapping[str, Any]) -> str:
    value = row['milliseconds']
    milliseconds = f'{value:.0f} ms' if value >= 100 else f'{value:.3g} ms'
    if row['interval'] is None:
        return milliseconds
    share = 'within noise' if row['ratio'] is None else f'**{row["ratio"]:.2f}**'
    return f'{share} ({milliseconds})'


def _large(content: Content) -> Iterator[str]:
    found = content['large']['accuracy']
    kinds = list(found['original']['cut'])
    yield f'| | MACs | {" | ".join(kinds)} | all |'
    yield '| -- ' * (len(kinds) + 3) + '|'
    for name, row in found.items():
        values = row['cut'].values()
        cells = [f'{row["macs"]:.0%}', *(f'{v:.1f}' for v in values), f'**{fmean(values):.1f}**']
        yield f'| {_title(name)} | {" | ".join(cells)} |'
    yield ''
    yield from _time_table(content['large']['times'])


_TABLES: dict[str, Callable[[Content], Iterator[str]]] = {
    'accuracy': _accuracy,
    'times': _times,
    'full': _large,
}
_PARTS = {'accuracy': 'methods', 'times': 'times', 'full': 'large'}
"""Table -> the key of what it needs in the results."""
