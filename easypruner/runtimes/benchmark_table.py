"""The results of a benchmark as text: a table for each runtime."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from rich.console import Console

from easypruner.report.text import (
    format_count,
    format_size,
    make_table,
    plural,
    print_lines,
)
from easypruner.runtimes.benchmarking import Benchmark, Measured

NO_DIFFERENCE = 'no difference within noise'
_COLUMNS = ('network', 'batch', 'ms', 'spread', 'samples/s', 'memory', 'size', 'time', 'interval')


def print_benchmark(found: Benchmark, console: Console) -> None:
    """Print a table for each runtime, then what could not be measured."""
    several = len({row.name for row in found.rows}) > 1
    for runtime, rows in groupby(found.rows, lambda row: row.runtime):
        ordered = list(rows)
        title = f'{runtime}, {plural(ordered[0].threads, "thread")}'
        if found.clock == 'cpu':
            title += ', CPU time'
        columns = _COLUMNS if several else _COLUMNS[:-2]
        cells = [row_cells(row)[: len(columns)] for row in ordered]
        console.print(make_table(title, columns, cells))
    machine = [f'{name} {version}' for name, version in found.machine.items()]
    print_lines(console, 'Machine', [', '.join(machine).removeprefix('processor ')])
    print_lines(console, 'Not measured', found.problems, style='yellow')


def row_cells(row: Measured) -> Sequence[str]:
    """Return the cells of a row; the ratio only if noise does not explain the difference."""
    times = row.seconds
    return (
        row.name,
        str(row.batch),
        f'{times.median * 1e3:.4g}',
        f'{times.spread * 1e3:.2g}',
        format_count(row.throughput),
        '-' if row.memory is None else format_size(row.memory),
        format_size(row.bytes),
        *ratio_cells(row),
    )


def ratio_cells(row: Measured) -> tuple[str, str]:
    """Return the share of the first network's time, and its interval."""
    if row.ratio is None:
        return '', ''
    interval = f'{row.low:.3f} to {row.high:.3f}'
    return (f'{row.ratio:.3f}', interval) if row.differs else (NO_DIFFERENCE, '')


def benchmark_text(found: Benchmark) -> str:
    """Return the tables as text."""
    console = Console(width=10_000, highlight=False, color_system=None)
    with console.capture() as captured:
        print_benchmark(found, console)
    return '\n'.join(line.rstrip() for line in captured.get().splitlines())
