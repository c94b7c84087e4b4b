"""Charts as SVG text for pages: small, in the colours of the page, readable on a phone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from easypruner.report.markup import escape
from easypruner.report.text import format_amount, format_count, shortened

COLOURS = 6
_WIDTH, _HEIGHT = 360.0, 250.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 12.0, 12.0, 38.0
_TICKS = 5


@dataclass(frozen=True)
class Series:
    """Points of a chart in one colour.

    Attributes:
        name: the name in the tooltip.
        xs: the horizontal positions.
        ys: the vertical positions, as many.
        colour: the number of the colour, any whole number.
        errors: the half lengths of vertical error bars; empty for none.
        widths: the same of horizontal ones.
        small: whether the points are dots without a name.
    """

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    colour: int = 0
    errors: Sequence[float] = ()
    widths: Sequence[float] = ()
    small: bool = False


@dataclass(frozen=True)
class _Axis:
    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 2)


def scatter(
    series: Sequence[Series], x_label: str, y_label: str, level: float | None = None
) -> str:
    """Return a chart of points with error bars.

    Args:
        series: the points.
        x_label: what is on the horizontal axis, which starts at 0.
        y_label: what is on the vertical axis.
        level: a height at which a dashed line is drawn.
    """
    x, y = _axes(series, from_zero=True, also=[] if level is None else [level])
    parts = [_frame(x, y, x_label, y_label)]
    if level is not None:
        parts.append(_line(x.start, y.at(level), x.end, y.at(level), 'level'))
    for entry in series:
        parts += [_mark(entry, number, x, y) for number in range(len(entry.xs))]
    return _svg(parts, f'{y_label} against {x_label}')


def lines(series: Sequence[Series], x_label: str, y_label: str, marks: Sequence[float] = ()) -> str:
    """Return a chart of lines. ``marks`` are positions of vertical dashed lines."""
    x, y = _axes(series, from_zero=False)
    parts = [_frame(x, y, x_label, y_label)]
    parts += [_line(x.at(m), y.start, x.at(m), y.end, 'level') for m in marks]
    for entry in series:
        points = ' '.join(f'{x.at(a)},{y.at(b)}' for a, b in zip(entry.xs, entry.ys, strict=True))
        title = f'<title>{escape(entry.name)}</title>'
        if len(entry.xs) == 1:
            parts.append(_mark(entry, 0, x, y))
        else:
            parts.append(f'<polyline class="{_colour(entry)}" points="{points}">{title}</polyline>')
    return _svg(parts, f'{y_label} against {x_label}')


def histogram(edges: Sequence[float], kept: Sequence[int], removed: Sequence[int]) -> str:
    """Return a histogram of kept and removed scales, on a logarithmic axis."""
    low, high = (math.log10(max(edge, 1e-30)) for edge in (edges[0], edges[-1]))
    x = _Axis(low, high if high > low else low + 1, _LEFT, _WIDTH - _RIGHT)
    y = _Axis(0, max((*kept, *removed, 1)), _HEIGHT - _BOTTOM, _TOP)
    decades = range(math.ceil(low), math.floor(high) + 1)
    step = max(1, math.ceil(len(decades) / _TICKS))
    labels = [(float(power), f'1e{power}') for power in decades[::step]]
    parts = [_frame(x, y, 'batch-norm scale', 'channels', labels)]
    width = (x.end - x.start) / max(1, len(edges) - 1)
    for name, counts in (('kept', kept), ('removed', removed)):
        for number, count in enumerate(counts):
            if count:
                top = y.at(count)
                parts.append(
                    f'<rect class="{name}" x="{x.start + number * width:.2f}" y="{top}" '
                    f'width="{width:.2f}" height="{y.start - top:.2f}">'
                    f'<title>{count} {name}</title></rect>'
                )
    return _svg(parts, 'histogram of batch-norm scales')


def _axes(
    series: Sequence[Series], *, from_zero: bool, also: Sequence[float] = ()
) -> tuple[_Axis, _Axis]:
    xs = [value for entry in series for value in entry.xs]
    ys = [*also]
    for entry in series:
        errors = entry.errors or [0.0] * len(entry.ys)
        ys += [y + s * e for y, e in zip(entry.ys, errors, strict=True) for s in (-1, 1)]
    x_low, x_high = (0.0 if from_zero else min(xs, default=0.0)), max(xs, default=1.0)
    x_high = x_high + 0.05 * (x_high - x_low) if from_zero else x_high
    y_low, y_high = min(ys, default=0.0), max(ys, default=1.0)
    margin = 0.08 * (y_high - y_low) or max(1e-6, 0.01 * abs(y_high)) or 1.0
    return (
        _Axis(x_low, x_high if x_high > x_low else x_low + 1, _LEFT, _WIDTH - _RIGHT),
        _Axis(y_low - margin, y_high + margin, _HEIGHT - _BOTTOM, _TOP),
    )


def ticks(low: float, high: float) -> list[float]:
    """Return round numbers from ``low`` to ``high``, about five.

    >>> ticks(0, 103)
    [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]
    """
    raw = (high - low) / _TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    step = min((f * power for f in (1, 2, 5, 10)), key=lambda each: abs(math.log(each / raw)))
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 12) + 0.0 for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _frame(
    x: _Axis,
    y: _Axis,
    x_label: str,
    y_label: str,
    x_ticks: Sequence[tuple[float, str]] | None = None,
) -> str:
    shown = x_ticks if x_ticks is not None else [(t, _tick(t)) for t in ticks(x.low, x.high)]
    parts = []
    for value in ticks(y.low, y.high):
        parts.append(_line(x.start, y.at(value), x.end, y.at(value), 'grid'))
        parts.append(_text(x.start - 5, y.at(value) + 4, _tick(value), 'end'))
    for value, text in shown:
        parts.append(_line(x.at(value), y.start, x.at(value), y.start + 4, 'axis'))
        parts.append(_text(x.at(value), y.start + 15, text, 'middle'))
    parts.append(_line(x.start, y.start, x.end, y.start, 'axis'))
    parts.append(_text((x.start + x.end) / 2, _HEIGHT - 6, shortened(x_label), 'middle'))
    middle = (y.start + y.end) / 2
    turned = f' transform="rotate(-90 11 {middle})"'
    parts.append(f'<text x="11" y="{middle}" text-anchor="middle"{turned}>{escape(y_label)}</text>')
    return ''.join(parts)


def _tick(value: float) -> str:
    return format_count(value) if abs(value) >= 1000 else format_amount(value)


def _mark(entry: Series, number: int, x: _Axis, y: _Axis) -> str:
    across, up = x.at(entry.xs[number]), y.at(entry.ys[number])
    colour = _colour(entry)
    if entry.small:
        return f'<circle class="{colour} dot" cx="{across}" cy="{up}" r="2"/>'
    parts = []
    if entry.errors:
        ends = [y.at(entry.ys[number] + sign * entry.errors[number]) for sign in (-1, 1)]
        parts.append(_line(across, ends[0], across, ends[1], colour))
        parts += [_line(across - 4, end, across + 4, end, colour) for end in ends]
    if entry.widths:
        sides = [x.at(max(0.0, entry.xs[number] + s * entry.widths[number])) for s in (-1, 1)]
        parts.append(_line(sides[0], up, sides[1], up, colour))
    title = f'<title>{escape(entry.name)}</title>'
    parts.append(f'<g>{title}{marker(across, up, entry.colour)}</g>')
    return ''.join(parts)


def marker(x: float, y: float, number: int) -> str:
    """Return the mark of a series, by its number, around a point."""
    shapes = (
        f'<circle cx="{x}" cy="{y}" r="5"',
        f'<rect x="{x - 4.5:.2f}" y="{y - 4.5:.2f}" width="9" height="9"',
        f'<path d="M{x} {y - 6:.2f}l6 6l-6 6l-6 -6z"',
        f'<path d="M{x} {y - 6:.2f}l6 10h-12z"',
    )
    return f'{shapes[number % len(shapes)]} class="c{number % COLOURS}"/>'


def _colour(entry: Series) -> str:
    return f'c{entry.colour % COLOURS}'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(parts: Sequence[str], title: str) -> str:
    box = f'0 0 {_WIDTH:g} {_HEIGHT:g}'
    label = escape(title)
    return f'<svg viewBox="{box}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
