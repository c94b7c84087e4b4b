"""Forecast: the time of a pass under masks, from the times of the network's layers over widths."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from easypruner.graph import ChannelGraph
from easypruner.graph.coupling.cost import count_kept
from easypruner.runtimes.layer_times import Layer, LayerTimes
from easypruner.runtimes.layers import LayerUse, layer_uses

Floats = npt.NDArray[np.float64]

_SHARES = (0.25, 0.5, 1.0)
"""The shares of a layer's widths at which it is timed."""
_BLOCK = 16
"""Runtimes compute channels in blocks, so that widths between their multiples are not typical."""
_KNOTS = len(_SHARES) + 1


@dataclass(frozen=True)
class _Surfaces:
    """The seconds of each layer over the two widths of its weight, interpolated linearly.

    Attributes:
        first: the first widths that have a time, shape ``(layers, knots)``, ascending from 0.
        second: the second widths.
        seconds: the times, shape ``(layers, knots, knots)``; wider is never faster.
    """

    first: Floats
    second: Floats
    seconds: Floats

    def __call__(self, first: Floats, second: Floats) -> Floats:
        """Return the seconds of each layer at its widths."""
        row = np.arange(len(self.first))
        i, x = _position(self.first, first)
        j, y = _position(self.second, second)
        table = self.seconds
        low = table[row, i, j] * (1 - x) + table[row, i + 1, j] * x
        high = table[row, i, j + 1] * (1 - x) + table[row, i + 1, j + 1] * x
        seconds: Floats = low * (1 - y) + high * y
        return seconds


def _position(knots: Floats, widths: Floats) -> tuple[npt.NDArray[np.int64], Floats]:
    """Return the interval of each width, and the position in it from 0 to 1."""
    row = np.arange(len(knots))
    interval = (widths[:, None] >= knots[:, 1:-1]).sum(axis=1)
    below, above = knots[row, interval], knots[row, interval + 1]
    return interval, (widths - below) / (above - below)


@dataclass(frozen=True)
class _Sizes:
    """The kept widths of weights: ``base + share @ units``, for the kept units of each group."""

    base: Floats
    share: Floats

    def __call__(self, units: Sequence[int]) -> Floats:
        sizes: Floats = self.base + self.share @ np.asarray(units, dtype=np.float64)
        return sizes


class Forecast:
    """Predicts the time of a forward pass in a runtime from the times of its layers.

    The times of all convolutions and linear layers are added up. What the whole network takes
    besides them goes with the activations. A graph that was cut needs another forecast.

    Args:
        graph: the channel graph of the network.
        times: the times of layers in the runtime.
        whole: the measured seconds of a pass of the whole network.
    """

    def __init__(self, graph: ChannelGraph, times: LayerTimes, whole: float) -> None:
        self._graph = graph
        self.whole = whole
        uses = layer_uses(graph)
        plans = [_Plan.of(use, graph) for use in uses]
        wanted = [layer for plan in plans for layer in plan.layers()]
        known = times.seconds(wanted)
        kept = [plan for plan in plans if all(layer in known for layer in plan.layers())]
        self.paths = tuple(plan.use.path for plan in kept)
        self._first = _stacked([plan.sizes[0] for plan in kept], graph)
        self._second = _stacked([plan.sizes[1] for plan in kept], graph)
        self._surfaces = _surfaces([plan.surface(known) for plan in kept])
        self._activations = max(graph.cost().activations, 1)
        alone = float(self._layers([g.size for g in graph.groups.values()]).sum())
        # Alone, a layer may take more time than in a network: its input comes from memory.
        self._scale = min(whole / alone, 1.0) if alone else 1.0
        self._rest = whole - self._scale * alone

    def seconds(self, masks: Mapping[str, Tensor] | None = None) -> float:
        """Return the predicted seconds of a pass under masks."""
        layers = self._scale * float(self._layers(self._units(masks)).sum())
        activations = self._graph.cost(masks).activations / self._activations
        return layers + self._rest * activations

    def by_layer(self, masks: Mapping[str, Tensor] | None = None) -> dict[str, float]:
        """Return path of a layer -> its predicted seconds under masks, of all its calls."""
        times: dict[str, float] = {}
        found = self._scale * self._layers(self._units(masks))
        for path, seconds in zip(self.paths, found.tolist(), strict=True):
            times[path] = times.get(path, 0.0) + seconds
        return times

    def _units(self, masks: Mapping[str, Tensor] | None) -> list[int]:
        return count_kept(masks or {}, self._graph.groups)

    def _layers(self, units: Sequence[int]) -> Floats:
        return self._surfaces(self._first(units), self._second(units))


@dataclass(frozen=True)
class _Plan:
    """The widths at which a layer is timed, and how its widths depend on the groups.

    Attributes:
        use: the layer.
        sizes: the two widths of its weight as functions of the kept units.
        knots: for each of the two, the widths that are timed, ascending.
        scaled: whether the number of groups of a convolution goes with the first width.
    """

    use: LayerUse
    sizes: tuple[_Width, _Width]
    knots: tuple[tuple[int, ...], tuple[int, ...]]
    scaled: bool

    @classmethod
    def of(cls, use: LayerUse, graph: ChannelGraph) -> _Plan:
        scaled = use.path in _scaled_groups(graph)
        sizes = _Width.of(use, 0, graph), _Width.of(use, 1, graph)
        first, second = use.weight[:2]
        part = first // use.groups if scaled else use.groups
        step = _step(first) if use.groups == 1 else math.ceil(_step(first) / part) * part
        steps = (part if use.groups > 1 and not scaled else step), _step(second)
        knots = tuple(
            _knots(size, step) if width.share else (size,)
            for size, step, width in zip((first, second), steps, sizes, strict=True)
        )
        return cls(use, sizes, knots, scaled)  # type: ignore[arg-type]

    def layers(self) -> list[Layer]:
        """Return the layers that are timed, in the order of the knots."""
        first, second = self.knots
        return [(self.use.form, self.use.widths(a, b, self.scaled)) for a in first for b in second]

    def surface(self, known: Mapping[Layer, float]) -> tuple[Floats, Floats, Floats]:
        """Return the knots, with 0, and the seconds at them."""
        first, second = self.knots
        times = np.array([known[layer] for layer in self.layers()]).reshape(len(first), len(second))
        times = _from_zero(_from_zero(times, first).T, second).T
        times = _ascending(_ascending(times).T).T
        return np.array([0, *first], float), np.array([0, *second], float), times


@dataclass(frozen=True)
class _Width:
    """A width of a weight: ``base`` plus, for each group in it, a share of its kept units."""

    base: float
    share: Mapping[str, float]

    @classmethod
    def of(cls, use: LayerUse, dim: int, graph: ChannelGraph) -> _Width:
        share: dict[str, float] = {}
        for name, count in _indices(graph).get((use.path, dim), ()):
            share[name] = share.get(name, 0.0) + count / graph.groups[name].size
        gone = sum(share[name] * graph.groups[name].size for name in share)
        return cls(use.weight[dim] - gone, share)


def _indices(graph: ChannelGraph) -> dict[tuple[str, int], list[tuple[str, int]]]:
    """Return (layer, dimension of its weight) -> the groups in it, with their indices there."""
    found: dict[tuple[str, int], list[tuple[str, int]]] = {}
    shared = _names(graph)
    for name, group in graph.groups.items():
        for member in group.members:
            for path in shared.get(member.param, ()):
                found.setdefault((path, member.dim), []).append((name, member.index.numel()))
    return found


def _names(graph: ChannelGraph) -> dict[str, list[str]]:
    """Return parameter -> the layers whose weight it is, or whose weight is computed from it."""
    layers = {path: module for path, module in graph.model.named_modules() if path}
    by_weight: dict[int, list[str]] = {}
    for path, layer in layers.items():
        weight = layer._parameters.get('weight')
        if weight is not None:
            by_weight.setdefault(id(weight), []).append(path)
    names: dict[str, list[str]] = {}
    for name in {member.param for group in graph.groups.values() for member in group.members}:
        tensor = graph.parameter(name)
        paths = by_weight.get(id(tensor), [])
        computed = '.parametrizations.weight.'
        if not paths and computed in name and tensor.dim() > 1:
            paths = [name.partition(computed)[0]]
        names[name] = paths
    return names


def _scaled_groups(graph: ChannelGraph) -> frozenset[str]:
    """Return the convolutions whose number of groups goes with their widths."""
    masks = {n: torch.arange(g.size) < max(g.size // 2, 1) for n, g in graph.groups.items()}
    return frozenset(path for path, name in graph.attributes(masks) if name == 'groups')


def _step(size: int) -> int:
    """Return the step of the widths that are timed."""
    return _BLOCK if size >= 2 * _BLOCK else _BLOCK // 4 if size >= _BLOCK // 2 else 1


def _knots(size: int, step: int) -> tuple[int, ...]:
    """Return the widths at which a dimension of a weight is timed.

    >>> _knots(256, 16), _knots(144, 16), _knots(3, 1)
    ((64, 128, 256), (48, 80, 144), (1, 2, 3))
    """
    return tuple(sorted({min(math.ceil(size * share / step) * step, size) for share in _SHARES}))


def _ascending(times: Floats) -> Floats:
    """Return times that do not fall with the width: half way between both bounds of each."""
    above = np.maximum.accumulate(times, axis=0)
    below = np.minimum.accumulate(times[::-1], axis=0)[::-1]
    middle: Floats = (above + below) / 2
    return middle


def _from_zero(times: Floats, knots: Sequence[int]) -> Floats:
    """Put a row for no channels before the others: the line through the first two of them."""
    start = times[:1]
    if len(knots) > 1:
        start = start - (times[1] - times[0]) * knots[0] / (knots[1] - knots[0])
    return np.concatenate([np.clip(start, 0, None), times])


def _surfaces(rows: Sequence[tuple[Floats, Floats, Floats]]) -> _Surfaces:
    """Stack surfaces. The times stay the same behind the last width."""
    first = np.zeros((len(rows), _KNOTS))
    second, seconds = first.copy(), np.zeros((len(rows), _KNOTS, _KNOTS))
    for number, (a, b, times) in enumerate(rows):
        first[number] = _padded(a)
        second[number] = _padded(b)
        missing = [(0, _KNOTS - len(a)), (0, _KNOTS - len(b))]
        seconds[number] = np.pad(times, missing, mode='edge')
    return _Surfaces(first, second, seconds)


def _padded(knots: Floats) -> Floats:
    more = np.arange(1, _KNOTS - len(knots) + 1)
    padded: Floats = np.concatenate([knots, knots[-1] + more])
    return padded


def _stacked(widths: Sequence[_Width], graph: ChannelGraph) -> _Sizes:
    number = {name: n for n, name in enumerate(graph.groups)}
    share = np.zeros((len(widths), len(number)))
    for row, width in enumerate(widths):
        for name, part in width.share.items():
            share[row, number[name]] = part
    return _Sizes(np.array([width.base for width in widths]), share)
