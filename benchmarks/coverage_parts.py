"""Parts of docs/coverage.md: shares of kinds of structure, the slowest traces, random networks."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

from coverage_result import Result

from easypruner.graph.answers.structure import KINDS

_SLOWEST = 20
_RANDOM = """
## Random networks

`benchmarks/random_networks.py` draws networks of two to six blocks with hypothesis, each with heads
(plain, grouped, multi-query), experts, or modules that change at their first forward pass, among
all blocks of the tests. Half of those that return a dict have a side output that does not count. Of
{networks:,} networks, {traced:,} were traced, {verified:,} verified and {cut:,} cut, with
{groups:,} groups in all; {wrong} failed. A trace took {mean:.2f} s of CPU on average, the slowest
{slowest:.2f} s.
"""
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


def random_section(path: Path) -> str:
    """Return the section on random networks; nothing if there is no file with their results."""
    if not path.is_file():
        return ''
    found = json.loads(path.read_text(encoding='utf-8'))
    return _RANDOM.format(
        **{key: found[key] for key in ('networks', 'traced', 'verified', 'cut', 'groups')},
        wrong=len(found['wrong']) or 'none',
        mean=found['seconds'] / found['networks'],
        slowest=found['slowest'][0]['seconds'],
    )
