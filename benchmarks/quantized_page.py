"""The tables of docs/quantization.md, between the marks of the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parent.parent / 'docs' / 'quantization.md'
_MARKS = (
    '<!-- {} by benchmarks/quantized.py: begin -->\n\n',
    '\n<!-- {} by benchmarks/quantized.py: end -->',
)

Part = Mapping[str, Any]


def write_page(content: Mapping[str, Part], out: Path = PAGE) -> None:
    """Write a page with the tables of all parts.

    Args:
        content: the content of the results.
        out: the page; if it does not exist, the one of the docs is taken.
    """
    page = (out if out.is_file() else PAGE).read_text(encoding='utf-8')
    out.write_text(filled(page, content), encoding='utf-8')


def filled(page: str, content: Mapping[str, Part]) -> str:
    """Return a page with the table of each part of some results between its marks."""
    for part, found in content.items():
        begin, end = (mark.format(part) for mark in _MARKS)
        text = '\n'.join(_TABLES[part](found))
        start, stop = page.index(begin) + len(begin), page.index(end)
        page = f'{page[:start]}{text}\n{page[stop:]}'
    return page


def _accuracy(part: Part) -> Iterator[str]:
    yield '| | unpruned | pruned |'
    yield '| -- | -- | -- |'
    for tool, row in part['results'].items():
        yield f'| {tool} | {row["full"]:.1f} % | {row["pruned"]:.1f} % |'


def _latency(part: Part) -> Iterator[str]:
    for network, runtimes in part['results'].items():
        yield f'| {network} | ' + ' | '.join(
            f'{runtime}, {precision}' for runtime in runtimes for precision in ('float', 'int8')
        ) + ' |'  # fmt: skip
        yield '| -- ' * (1 + 2 * len(runtimes)) + '|'
        for variant in _variants(runtimes):
            cells = [
                _cell(rows[f'{variant}, {precision}'])
                for rows in runtimes.values()
                for precision in ('float', 'int8')
            ]
            yield f'| {variant} | ' + ' | '.join(cells) + ' |'
        yield ''
        yield from (_in_int8(network, runtime, rows) for runtime, rows in runtimes.items())
        yield ''
    yield from _measured(part, ('onnxruntime', 'openvino', 'nncf', 'torch'))


def _variants(runtimes: Mapping[str, Any]) -> list[str]:
    names = next(iter(runtimes.values()))
    return list(dict.fromkeys(name.rpartition(', ')[0] for name in names))


def _in_int8(network: str, runtime: str, rows: Mapping[str, Any]) -> str:
    """Return a line that compares the int8 networks with each other."""
    whole, *pruned = (row for name, row in rows.items() if name.endswith('int8'))
    names = [name.rpartition(', ')[0] for name in rows if name.endswith('int8')]
    shares = ', '.join(
        f'{row["ratio"] / whole["ratio"]:.2f} with {name.rpartition(", ")[2]}'
        for name, row in zip(names[1:], pruned, strict=True)
    )
    return f'- {network} in {runtime}, of its unpruned int8 time: {shares}.'


def _cell(row: Mapping[str, float]) -> str:
    return f'**{row["ratio"]:.2f}** ({row["ms"]:.1f} ms, {row["bytes"] / 1e6:.1f} MB)'


def _widths(part: Part) -> Iterator[str]:
    (first, *_) = part['results'].values()
    widths = list(next(iter(first.values())))
    yield '| layers | runtime | ' + ' | '.join(widths) + ' |'
    yield '| -- ' * (2 + len(widths)) + '|'
    for kind, rows in part['results'].items():
        for runtime, row in rows.items():
            yield f'| {kind} | {runtime} | ' + ' | '.join(f'{v:.2f}' for v in row.values()) + ' |'
    yield ''
    yield from _measured(part, ('onnxruntime', 'openvino', 'nncf'))


def _measured(part: Part, packages: tuple[str, ...]) -> Iterator[str]:
    versions = ', '.join(f'{name} {part["versions"][name]}' for name in packages)
    yield f'Measured on {part["machine"]}, with {versions}.'


_TABLES: dict[str, Callable[[Part], Iterator[str]]] = {
    'accuracy': _accuracy,
    'latency': _latency,
    'widths': _widths,
}
