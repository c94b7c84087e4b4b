"""Two tables of docs/coverage.md: what can go by kind of structure, and the slowest traces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from coverage_result import Result

from easypruner.graph.answers.structure import KINDS

_SLOWEST = 20
_HELD_LENGTH = 80


def by_source(results: Iterable[Result]) -> Iterator[tuple[str, list[Result]]]:
    """Yield (source, its results), in the order of the results."""
    for source, rows in groupby(results, key=lambda result: result.source):
        yield source, list(rows)


def shares_table(results: Sequence[Result]) -> str:
    """Return the shares of each library, and the reason that holds most units of each kind."""
    head = (
        '| library | kind of structure | models | units that can go | parameters that can go '
        '| what holds most of the others |\n|---|---|---|---|---|---|'
    )
    rows = [_shares(source, rows, kind) for source, rows in by_source(results) for kind in KINDS]
    return '\n'.join([head, *filter(None, rows)])


def _shares(source: str, results: Iterable[Result], kind: str) -> str:
    having = [result for result in results if kind in result.shares]
    if not having:
        return ''
    columns = zip(*(result.shares[kind] for result in having), strict=True)
    units, prunable, params, free = (sum(column) for column in columns)
    reasons: Counter[str] = Counter()
    for result in having:
        reasons.update(result.held.get(kind, {}))
    most = ''.join(f'`{_short(why)}` ({count})' for why, count in reasons.most_common(1))
    cells = [source, kind, str(len(having)), _share(prunable, units), _share(free, params), most]
    return f'| {" | ".join(cells)} |'


def _share(part: int, whole: int) -> str:
    return f'{part:,} of {whole:,} ({100 * part / whole:.1f} %)' if whole else ''


def _short(reason: str) -> str:
    reason = reason.replace('`', "'").replace('|', '/')
    return reason if len(reason) <= _HELD_LENGTH else f'{reason[: _HELD_LENGTH - 3]}...'


def slowest_table(results: Iterable[Result]) -> str:
    """Return the traces that took most CPU time, those for whole heads among them."""
    traces = [
        (seconds, options, result)
        for result in results
        for seconds, options in (
            (result.seconds, ''),
            (result.heads_seconds or 0.0, "`attention='heads'`"),
        )
    ]
    slowest = sorted(traces, key=lambda trace: -trace[0])[:_SLOWEST]
    lines = [
        f'| {r.source} | {r.name} | {options} | {seconds:.2f} | {r.own_seconds:.2f} |'
        for seconds, options, r in slowest
        if seconds
    ]
    head = '| library | model | options | trace, s | own, s |\n|---|---|---|---|---|'
    return '\n'.join([head, *lines])
