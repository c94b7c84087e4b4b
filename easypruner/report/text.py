"""Text for people: numbers in human units, names shown literally, tables that fit."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from easypruner.report.result import Artifact

_PIPE_WIDTH = 200
_DECIMAL = ('', 'k', 'M', 'G', 'T', 'P')
_BINARY = ('B', 'KiB', 'MiB', 'GiB', 'TiB')


def count(value: float) -> str:
    """Return a count with three significant digits and a decimal prefix.

    >>> count(0), count(272474), count(40_813_184), count(4.089e9)
    ('0', '272 k', '40.8 M', '4.09 G')
    """
    return _scaled(value, 1000, _DECIMAL)


def size(value: float) -> str:
    """Return a number of bytes with three significant digits and a binary prefix.

    >>> size(512), size(1_127_000), size(102_500_000)
    ('512 B', '1.07 MiB', '97.8 MiB')
    """
    return _scaled(value, 1024, _BINARY)


def plural(number: int, thing: str) -> str:
    """Return a number of things.

    >>> plural(1, 'epoch'), plural(2, 'epoch')
    ('1 epoch', '2 epochs')
    """
    return f'{number} {thing}' if number == 1 else f'{number} {thing}s'


def duration(seconds: float) -> str:
    """Return a time span in its two largest units.

    >>> duration(4.21), duration(75), duration(7384)
    ('4.2 s', '1 min 15 s', '2 h 03 min')
    """
    if seconds < 59.95:
        return f'{seconds:.1f} s'
    whole = round(seconds)
    if whole < 3600:
        return f'{whole // 60} min {whole % 60:02d} s'
    minutes = round(whole / 60)
    return f'{minutes // 60} h {minutes % 60:02d} min'


def amount(value: float) -> str:
    """Return a limit: large ones as counts, others with four significant digits.

    >>> amount(0.5), amount(0.49876), amount(20_400_000)
    ('0.5', '0.4988', '20.4 M')
    """
    return count(value) if abs(value) >= 10_000 else f'{value:.4g}'


def share(part: float, whole: float) -> str:
    """Return ``part`` of ``whole`` in percent; a dash where ``whole`` is 0.

    >>> share(20.4, 40.8), share(1, 0)
    ('50.0 %', '-')
    """
    return f'{100 * part / whole:.1f} %' if whole else '-'


def change(points: float) -> str:
    """Return a difference of accuracies in points, with its sign.

    >>> change(-0.347), change(-0.001)
    ('-0.35', '+0.00')
    """
    return f'{round(points, 2) + 0.0:+.2f}'


def literal(value: str) -> Text:
    r"""Return ``value`` as it is: no markup, no emoji codes, control characters escaped.

    >>> literal('[red]:smile:' + chr(27)).plain
    '[red]:smile:\\x1b'
    """
    return Text(
        ''.join(
            c if c.isprintable() or c in '\n\t\u00a0' else c.encode('unicode_escape').decode()
            for c in value
        )
    )


def report_console() -> Console:
    """Return a console on standard output; wide where that is a pipe, so that nothing wraps."""
    # Where the output's encoding lacks a character, a report shows its code and does not stop.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors='backslashreplace')
    return Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, highlight=False)


def make_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1
) -> Table:
    """Return a table of literal cells; the first ``left`` columns are names, the others numbers."""
    table = Table(
        title=literal(title),
        title_justify='left',
        title_style='bold',
        box=SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
    )
    for place, column in enumerate(columns):
        if place < left:
            table.add_column(literal(column), overflow='fold')
        else:
            table.add_column(literal(column), justify='right', overflow='fold')
    for row in rows:
        table.add_row(*(literal(cell) for cell in row))
    return table


def natural_width(table: Table) -> int:
    """Return how many columns ``table`` takes where none of its cells is folded."""
    wide = Console(width=10_000)
    return Measurement.get(wide, wide.options, table).maximum


def print_lines(console: Console, heading: str, lines: Iterable[str], style: str = '') -> None:
    """Print a bold heading and an indented, unwrapped line for each of ``lines``, if any."""
    entries = list(lines)
    if not entries:
        return
    console.print(Text(heading, style='bold'))
    for line in entries:
        text = Text('  ') + literal(line)
        text.stylize(style)
        console.print(text, soft_wrap=True)
    console.print()


def print_artifacts(console: Console, artifacts: Iterable[Artifact]) -> None:
    """Print what plugins add to a report."""
    for artifact in artifacts:
        if artifact.figure is None:
            console.print(make_table(artifact.name, artifact.columns, artifact.rows))
        else:
            print_lines(console, artifact.name, [str(artifact.figure)])


def _scaled(value: float, base: int, units: tuple[str, ...]) -> str:
    power = 0
    # 999.5 would print as four digits: it belongs to the next unit.
    while abs(value) >= 999.5 and power < len(units) - 1:
        value /= base
        power += 1
    if abs(value) >= 999.5 or (power == 0 and value == int(value)):
        number = f'{value:.0f}'
    else:
        number = f'{value:.3g}'
    return f'{number} {units[power]}'.rstrip()
