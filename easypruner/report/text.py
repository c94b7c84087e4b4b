"""Text output: numbers in readable units, names without markup, and tables."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Sequence
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from easypruner.report.result import Artifact, BudgetResult

_PIPE_WIDTH = 200
_DECIMAL = ('', 'k', 'M', 'G', 'T', 'P')
_BINARY = ('B', 'KiB', 'MiB', 'GiB', 'TiB')
_ROW = 6
"""The fewest consecutive numbers that are shortened."""


def format_count(value: float) -> str:
    """Format a count with three significant digits and a decimal prefix.

    >>> format_count(0), format_count(272474), format_count(40_813_184), format_count(4.089e9)
    ('0', '272 k', '40.8 M', '4.09 G')
    """
    return _scaled(value, 1000, _DECIMAL)


def format_size(value: float) -> str:
    """Format a number of bytes with three significant digits and a binary prefix.

    >>> format_size(512), format_size(1_127_000), format_size(102_500_000)
    ('512 B', '1.07 MiB', '97.8 MiB')
    """
    return _scaled(value, 1024, _BINARY)


def plural(number: int, thing: str) -> str:
    """Format a number of things.

    >>> plural(1, 'epoch'), plural(2, 'epoch')
    ('1 epoch', '2 epochs')
    """
    return f'{number} {thing}' if number == 1 else f'{number} {thing}s'


def shortened(name: str, most: int = 40) -> str:
    """Return a name without its middle if it is long: names often differ at their ends.

    >>> shortened('a method of a study', 11)
    'a met…study'
    """
    if len(name) <= most:
        return name
    half = (most - 1) // 2
    return f'{name[: most - 1 - half]}…{name[-half:]}'


def format_numbers(numbers: Iterable[int]) -> str:
    """Format a list of whole numbers, such as seeds; six or more in a row are shortened.

    >>> format_numbers([0, 1, 2]), format_numbers([7, *range(60)])
    ('0, 1, 2', '7, 0 to 59')
    """
    rows: list[list[int]] = []
    for number in numbers:
        if rows and rows[-1][-1] == number - 1:
            rows[-1].append(number)
        else:
            rows.append([number])
    short = [f'{row[0]} to {row[-1]}' if len(row) >= _ROW else ', '.join(map(str, row))
             for row in rows]  # fmt: skip
    return ', '.join(short)


def format_duration(seconds: float) -> str:
    """Format a duration in its two largest units.

    >>> format_duration(4.21), format_duration(75), format_duration(7384)
    ('4.2 s', '1 min 15 s', '2 h 03 min')
    """
    if seconds < 59.95:
        return f'{seconds:.1f} s'
    whole = round(seconds)
    if whole < 3600:
        return f'{whole // 60} min {whole % 60:02d} s'
    minutes = round(whole / 60)
    return f'{minutes // 60} h {minutes % 60:02d} min'


def format_amount(value: float) -> str:
    """Format a limit: a large one as a count, a small one with four significant digits.

    >>> format_amount(0.5), format_amount(0.49876), format_amount(20_400_000)
    ('0.5', '0.4988', '20.4 M')
    """
    return format_count(value) if abs(value) >= 10_000 else f'{value:.4g}'


def format_share(part: float, whole: float) -> str:
    """Format the share of ``part`` in ``whole`` in percent; a dash if ``whole`` is 0.

    >>> format_share(20.4, 40.8), format_share(1, 0)
    ('50.0 %', '-')
    """
    return f'{100 * part / whole:.1f} %' if whole else '-'


def format_change(points: float) -> str:
    """Format a difference of accuracies in percentage points, with its sign.

    >>> format_change(-0.347), format_change(-0.001)
    ('-0.35', '+0.00')
    """
    return f'{round(points, 2) + 0.0:+.2f}'


def describe_budget(result: BudgetResult) -> str:
    """Describe a limit and what was delivered, in one line."""
    spread = '' if result.spread is None else f' ± {format_amount(result.spread)}'
    where = f' ({result.where})' if result.where else ''
    return (
        f'budget {result.kind}: asked {format_amount(result.asked)}, '
        f'delivered {format_amount(result.delivered)}{spread}{where}'
    )


def literal_text(value: str) -> Text:
    r"""Return text that is printed unchanged: without markup or emoji, control characters escaped.

    >>> literal_text('[red]:smile:' + chr(27)).plain
    '[red]:smile:\\x1b'
    """
    return Text(
        ''.join(
            c if c.isprintable() or c in '\n\t\u00a0' else c.encode('unicode_escape').decode()
            for c in value
        )
    )


def report_console() -> Console:
    """Return a console on standard output. It is wide for a pipe, so that lines are not folded."""
    # Characters that the output's encoding does not have are printed as escapes.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors='backslashreplace')
    return Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, highlight=False)


def make_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1
) -> Table:
    """Return a table of literal text. The first ``left`` columns are names, the others numbers."""
    table = Table(
        title=literal_text(title),
        title_justify='left',
        title_style='bold',
        box=SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
    )
    for number, column in enumerate(columns):
        justify: Literal['left', 'right'] = 'left' if number < left else 'right'
        table.add_column(literal_text(column), justify=justify, overflow='fold')
    for row in rows:
        table.add_row(*(literal_text(cell) for cell in row))
    return table


def natural_width(table: Table) -> int:
    """Return the width of a table in characters if no cell is folded."""
    wide = Console(width=10_000)
    return Measurement.get(wide, wide.options, table).maximum


def print_lines(console: Console, heading: str, lines: Iterable[str], style: str = '') -> None:
    """Print a bold heading and indented lines that are not folded; nothing without lines."""
    entries = list(lines)
    if not entries:
        return
    console.print(Text(heading, style='bold'))
    for line in entries:
        text = Text('  ') + literal_text(line)
        text.stylize(style)
        console.print(text, soft_wrap=True)
    console.print()


def print_artifacts(console: Console, artifacts: Iterable[Artifact]) -> None:
    """Print the artifacts of plugins."""
    for artifact in artifacts:
        if artifact.figure is None:
            console.print(make_table(artifact.name, artifact.columns, artifact.rows))
        else:
            print_lines(console, artifact.name, [str(artifact.figure)])


def _scaled(value: float, base: int, units: tuple[str, ...]) -> str:
    power = 0
    # 999.5 would be printed with four digits, so it gets the next unit.
    while abs(value) >= 999.5 and power < len(units) - 1:
        value /= base
        power += 1
    if abs(value) >= 999.5 or (power == 0 and value == int(value)):
        number = f'{value:.0f}'
    else:
        number = f'{value:.3g}'
    return f'{number} {units[power]}'.rstrip()
