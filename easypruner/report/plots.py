"""The pictures of reports, as matplotlib figures. They do not change matplotlib's global state."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from easypruner.base.files import write_with
from easypruner.report.comparison import Stat
from easypruner.report.text import literal_text, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from easypruner.report.scales import LayerChannels, Scales

# Okabe and Ito's palette, which people with any common colour blindness can distinguish.
_BLUE, _ORANGE = '#0072B2', '#E69F00'
_SERIES = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9')
_MARKERS = 'osD^vPX'
_INK, _GRID = '#333333', '#DDDDDD'
_STAR: dict[str, Any] = dict(ls='', marker='*', ms=13, color=_INK, zorder=3)
_DPI = 150
_TALLEST = 400.0  # inches, because Agg draws at most 65535 pixels
_SMALLEST_SCALE = 1e-9
_BINS = 60


@dataclass(frozen=True)
class Point:
    """One line of a comparison in the picture of accuracy against MACs.

    Attributes:
        name: the label in the legend.
        macs: the multiply-adds of each run, or another cost.
        accuracy: the accuracy of each run, in percent.
    """

    name: str
    macs: tuple[float, ...]
    accuracy: tuple[float, ...]


def draw_scales(before: Scales, after: Scales) -> Figure:
    """Draw histograms of kept and removed scales before and after a sparsity stage."""
    figure = _figure(10, 4)
    bins = _scale_bins(before, after)
    left = figure.add_subplot(1, 2, 1)
    right = figure.add_subplot(1, 2, 2, sharex=left, sharey=left)
    _draw_scales(left, before, bins, 'Before the sparsity stage')
    _draw_scales(right, after, bins, 'After the sparsity stage')
    left.set_ylabel('channels')
    left.legend(frameon=False)
    right.tick_params(labelleft=False)
    return figure


def draw_channels(layers: Sequence[LayerChannels]) -> Figure:
    """Draw a bar of kept and removed output channels for each layer, the first layer on top."""
    figure = _figure(8, min(max(2.0, 1.2 + 0.2 * len(layers)), _TALLEST))
    axes = figure.add_subplot()
    _style(axes, grid='x')
    positions = np.arange(len(layers))
    kept = np.array([layer.kept for layer in layers], dtype=float)
    removed = np.array([layer.removed for layer in layers], dtype=float)
    axes.barh(positions, kept, height=0.8, color=_BLUE, label='kept')
    bars = axes.barh(positions, removed, height=0.8, left=kept, color=_ORANGE, label='removed')
    widest = float((kept + removed).max(initial=1.0))
    shares = [f'{layer.kept} of {layer.kept + layer.removed}' for layer in layers]
    axes.bar_label(bars, shares, padding=3, fontsize=7, color=_INK)
    names = [literal_text(layer.name).plain for layer in layers]
    axes.set_yticks(positions, names, fontsize=7, parse_math=False)
    axes.set_ylim(len(layers) - 0.4, -0.6)
    axes.set_xlim(0, widest * 1.14)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel('output channels')
    figure.legend(loc='outside upper right', ncols=2, frameon=False)
    return figure


def draw_accuracy(
    points: Sequence[Point], baselines: Point | None = None, label: str = 'MACs'
) -> Figure:
    """Draw accuracy against MACs or another cost: the mean, deviation and runs of each line.

    Args:
        points: the lines. The legend sorts them by mean accuracy, the best first.
        baselines: the unpruned networks, drawn as stars, with a line at their mean accuracy.
        label: what the costs are.
    """
    figure = _figure(9, max(5, 0.22 * len(points) + 1))
    axes = figure.add_subplot()
    _style(axes, grid='both')
    if baselines is not None:
        axes.axhline(float(np.mean(baselines.accuracy)), color=_INK, lw=0.8, ls='--', zorder=1)
        axes.plot(baselines.macs, baselines.accuracy, label=_label(baselines), **_STAR)
    ordered = sorted(enumerate(points), key=lambda entry: -float(np.mean(entry[1].accuracy)))
    for number, point in ordered:
        _draw_point(axes, point, number)
    axes.xaxis.set_major_formatter(EngFormatter())
    axes.set_xlim(left=0)
    axes.set_xlabel(shortened(literal_text(label).plain), parse_math=False)
    axes.set_ylabel('accuracy, %')
    legend = figure.legend(loc='outside right upper', frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure atomically, as SVG if the path ends so, and else as PNG."""
    kind = 'svg' if str(path).endswith('.svg') else 'png'
    # The same picture is the same file.
    more: dict[str, Any] = {'metadata': {'Date': None}} if kind == 'svg' else {}
    write_with(path, lambda temporary: figure.savefig(temporary, format=kind, dpi=_DPI, **more))


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout='constrained')


def _style(axes: Axes, grid: str) -> None:
    axes.spines[['top', 'right']].set_visible(False)
    axes.grid(axis=grid, color=_GRID, lw=0.6)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    axes.tick_params(colors=_INK)


def _scale_bins(*scales: Scales) -> NDArray[np.float64]:
    values = np.concatenate([part for pair in scales for part in (pair.kept, pair.removed)])
    smallest = max(float(values.min(initial=1.0)), _SMALLEST_SCALE)
    largest = max(float(values.max(initial=0.0)), 10 * smallest)
    return np.geomspace(smallest, largest, _BINS + 1)


def _draw_scales(axes: Axes, scales: Scales, bins: NDArray[np.float64], title: str) -> None:
    _style(axes, grid='y')
    parts = ((scales.kept, _BLUE, 'kept'), (scales.removed, _ORANGE, 'removed'))
    for values, colour, label in parts:
        # A logarithmic axis has no position for 0, so a scale of 0 is drawn in the first bin.
        drawn = np.clip(values, bins[0], bins[-1])
        text = f'{label} ({values.size})'
        axes.hist(drawn, bins=bins.tolist(), color=colour, alpha=0.75, label=text)
    axes.set_xscale('log')
    tiny = min(scales.kept.min(initial=1.0), scales.removed.min(initial=1.0)) < bins[0]
    axes.set_xlabel(
        r'batch-norm scale $|\gamma|$' + (f' (0 drawn at {bins[0]:.0e})' if tiny else '')
    )
    axes.set_title(title)


def _draw_point(axes: Axes, point: Point, number: int) -> None:
    colour, marker = _SERIES[number % len(_SERIES)], _MARKERS[number % len(_MARKERS)]
    accuracy = Stat.of(point.accuracy)
    style: dict[str, Any] = dict(fmt=marker, ms=8, capsize=4, color=colour, zorder=4)
    macs = float(np.mean(point.macs))
    axes.errorbar(macs, accuracy.mean, accuracy.std, label=_label(point), **style)
    if accuracy.std is not None:
        axes.scatter(point.macs, point.accuracy, s=12, color=colour, alpha=0.5, zorder=3)


def _label(point: Point) -> str:
    # The label starts with a number, because matplotlib hides labels that start with _.
    return f'{Stat.of(point.accuracy).text()}   {shortened(literal_text(point.name).plain)}'
