"""The time of a network in a runtime as tables, and as values for JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from rich.console import Console

from easypruner.analysis.speed import Speed
from easypruner.report.text import format_share, make_table, print_lines


def print_speed(console: Console, found: Speed) -> None:
    """Print the time of a network, of its groups, and what a cut could save.

    Args:
        console: the console to print to.
        found: the times.
    """
    whole = found.seconds.median
    rows = (
        (
            group.name,
            str(group.units),
            _milliseconds(group.seconds),
            format_share(group.seconds, whole),
            str(group.half),
            _milliseconds(group.saved),
            format_share(group.saved, whole),
        )
        for group in sorted(found.groups, key=lambda group: -group.saved)
    )
    print_lines(console, f'Time in {found.runtime}', _lines(found))
    columns = ('group', 'units', 'time of its layers', 'of all', 'half', 'saves', 'of all')
    console.print(make_table('What half of a group saves', columns, rows))


def _lines(found: Speed) -> Iterator[str]:
    noise = _milliseconds(found.seconds.noise)
    yield f'a pass       {_milliseconds(found.seconds.median)} ± {noise}, measured'
    yield f'layers       {100 * found.layers:.1f} % of it, predicted from each layer alone'
    if found.budget is not None:
        budget = found.budget
        yield (
            f'{100 * budget.macs:g} % of MACs    {100 * budget.best:.1f} % of the time left at '
            f'best, {100 * budget.even:.1f} % if all groups lose the same share, predicted'
        )


def speed_as_dict(found: Speed) -> dict[str, Any]:
    """Return the times as plain values."""
    return dataclasses.asdict(found)


def _milliseconds(seconds: float) -> str:
    return f'{1e3 * seconds:.3g} ms'
