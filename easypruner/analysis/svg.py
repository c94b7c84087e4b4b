"""The wiring of a network as an SVG picture: a row for each layer, a line for each group."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from xml.sax.saxutils import escape

from easypruner.analysis.wiring import Layer, Part, Thread, Wiring, colour
from easypruner.report.text import literal_text

_ROW, _LANE, _MARGIN = 18, 14, 16
_TOP = 64
_CHARACTER = 7.3  # the width of a character in a monospace font of 12 pixels
_GAP = 24
_INK, _GREY, _STRIPE = '#333333', '#999999', '#f5f5f5'
_LEGEND: dict[Part, str] = {
    'makes': 'makes channels',
    'carries': 'carries them on',
    'reads': 'reads them',
}
_SIZES: dict[Part, float] = {'makes': 5.0, 'carries': 2.5, 'reads': 4.0}


@dataclass(frozen=True)
class _Columns:
    """The left edges of the columns of text and the width of the picture, in pixels."""

    path: float
    kind: float
    group: float
    width: float


def svg(wiring: Wiring, title: str) -> str:
    """Return an SVG document with the layers from top to bottom, in the order of the forward pass.

    Each group is a vertical line from its first to its last layer. A mark at each layer shows what
    the layer does with the channels: a disc if it makes them, a dot if it carries them on, a ring
    if it reads them. A frozen layer is grey, with the reason as its tooltip.
    """
    lanes = _lanes(wiring.threads)
    columns = _columns(wiring, 1 + max(lanes, default=-1), title)
    height = _TOP + _ROW * len(wiring.layers) + _MARGIN
    size = f'width="{columns.width:.0f}" height="{height}"'
    font = 'font-family="monospace" font-size="12"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font} fill="{_INK}">',
        f'<title>{_text(title)}</title>',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{_MARGIN}" y="24" font-size="15" font-weight="bold">{_text(title)}</text>',
        *_legend(),
    ]
    for number, layer in enumerate(wiring.layers):
        lines.extend(_row(number, layer, columns))
    for number, begun in _begun(wiring).items():
        lines.append(_labels(number, begun, columns))
    for number, thread in enumerate(wiring.threads):
        lines.extend(_line(thread, _MARGIN + _LANE * (lanes[number] + 0.5), colour(number)))
    return '\n'.join([*lines, '</svg>', ''])


def _lanes(threads: tuple[Thread, ...]) -> list[int]:
    """Return a lane for each thread, so that threads in the same lane do not overlap."""
    ends: list[int] = []
    lanes = []
    for thread in threads:
        first, last = min(thread.parts, default=0), max(thread.parts, default=0)
        lane = next((n for n, end in enumerate(ends) if end < first), len(ends))
        ends[lane:] = [last, *ends[lane + 1 :]]
        lanes.append(lane)
    return lanes


def _columns(wiring: Wiring, lanes: int, title: str) -> _Columns:
    path = _MARGIN + _LANE * lanes + _GAP
    kind = path + _width(_name(layer) for layer in wiring.layers)
    group = kind + _width(_kind(layer) for layer in wiring.layers)
    width = group + _width(
        ', '.join(_label(thread) for _, thread in begun) for begun in _begun(wiring).values()
    )
    return _Columns(path, kind, group, max(width, 2 * _MARGIN + 1.3 * _width([title]), 420))


def _width(texts: Iterable[str]) -> float:
    """Return the width of the longest text plus a gap, in pixels."""
    return _GAP + _CHARACTER * max((len(literal_text(text).plain) for text in texts), default=0)


def _begun(wiring: Wiring) -> dict[int, list[tuple[int, Thread]]]:
    """Return number of a layer -> the threads that start at this layer, with their numbers."""
    begun: dict[int, list[tuple[int, Thread]]] = defaultdict(list)
    for number, thread in enumerate(wiring.threads):
        if thread.parts:
            begun[min(thread.parts)].append((number, thread))
    return begun


def _row(number: int, layer: Layer, columns: _Columns) -> Iterator[str]:
    top = _TOP + _ROW * number
    if number % 2 == 0:
        yield (
            f'<rect x="0" y="{top}" width="{columns.width:.0f}" height="{_ROW}" fill="{_STRIPE}"/>'
        )
    fill = f' fill="{_GREY}"' if layer.frozen else ''
    tip = f'frozen: {layer.frozen}' if layer.frozen else layer.path
    yield (
        f'<g{fill}><title>{_text(tip)}</title>'
        f'<text x="{columns.path:.0f}" y="{top + 13}">{_text(_name(layer))}</text>'
        f'<text x="{columns.kind:.0f}" y="{top + 13}">{_text(_kind(layer))}</text></g>'
    )


def _line(thread: Thread, x: float, stroke: str) -> Iterator[str]:
    """Draw the line of a group, with its marks."""
    if not thread.parts:
        return
    first, last = (_middle(number) for number in (min(thread.parts), max(thread.parts)))
    yield f'<g stroke="{stroke}" stroke-width="2"><title>{_text(_label(thread))}</title>'
    yield f'<line x1="{x:.0f}" y1="{first}" x2="{x:.0f}" y2="{last}"/>'
    for number, parts in thread.parts.items():
        yield from (_mark(part, x, _middle(number), stroke) for part in parts)
    yield '</g>'


def _mark(part: Part, x: float, y: float, stroke: str) -> str:
    fill = 'white' if part == 'reads' else stroke
    return f'<circle cx="{x:.0f}" cy="{y}" r="{_SIZES[part]}" fill="{fill}" stroke="{stroke}"/>'


def _labels(number: int, begun: list[tuple[int, Thread]], columns: _Columns) -> str:
    """Write the names of the groups that start at a layer, each in its colour."""
    spans = (f'<tspan fill="{colour(n)}">{_text(_label(thread))}</tspan>' for n, thread in begun)
    y = _TOP + _ROW * number + 13
    return f'<text x="{columns.group:.0f}" y="{y}">{", ".join(spans)}</text>'


def _legend() -> Iterator[str]:
    x = float(_MARGIN)
    for part, text in _LEGEND.items():
        yield _mark(part, x + 5, 46, _INK)
        yield f'<text x="{x + 16:.0f}" y="50">{text}</text>'
        x += 16 + _width([text])
    yield f'<text x="{x:.0f}" y="50" fill="{_GREY}">frozen</text>'


def _middle(number: int) -> float:
    return _TOP + _ROW * (number + 0.5)


def _name(layer: Layer) -> str:
    return layer.path or '(the model itself)'


def _kind(layer: Layer) -> str:
    return f'{layer.kind} {" x ".join(map(str, layer.shape))}'


def _label(thread: Thread) -> str:
    return f'{thread.group}: {thread.units} units'


def _text(value: str) -> str:
    """Escape text for XML."""
    return escape(literal_text(value).plain)
