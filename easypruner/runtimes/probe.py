"""The probe: finds on this machine, layer by layer, on which widths a runtime is fast."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from easypruner.base.cache import cached, processor
from easypruner.base.json_fields import Field
from easypruner.base.randomness import fixed_seed
from easypruner.runtimes.timing import measure

if TYPE_CHECKING:
    from easypruner.runtimes.runtime import Runtime

GRIDS = (1, 2, 4, 8, 16)
"""The grids that are distinguished. Multiples of 32 are taken to be fast everywhere."""
TOLERANCE = 1.02
"""Widths whose time is above that of an ideal layer by this factor are not fast."""
_VERSION = 2
_REPEATS, _WARMUP = 15, 3
_SIDE, _TOKENS, _GROUPS = 28, 64, 8
_WIDTHS = (32, 40, 44, 46, 47, 48, 56, 60, 62, 63, 64, 65, 66, 68, 72, 80, 96, 112, 128)
_PER_GROUP = (4, 6, 7, 8, 9, 10, 12, 14, 15, 16, 18, 20, 24, 32, 48, 64)


@dataclass(frozen=True)
class Layer:
    """How a kind of layer is built for the probe.

    Attributes:
        build: width -> layer, whose input and output have this width where the kind allows it.
        inputs: width -> its input.
        widths: the widths that are measured; for grouped ones, the channels of a group.
        ideal: those whose times are taken as those of a layer without steps.
    """

    build: Callable[[int], nn.Module]
    inputs: Callable[[int], Tensor]
    widths: tuple[int, ...]
    ideal: tuple[int, ...]


def _image(channels: int) -> Tensor:
    return torch.randn(1, channels, _SIDE, _SIDE)


LAYERS: Mapping[str, Layer] = {
    'dense': Layer(lambda w: nn.Conv2d(w, w, 3, padding=1), _image, _WIDTHS, (32, 64, 96, 128)),
    'depthwise': Layer(
        lambda w: nn.Conv2d(w, w, 3, padding=1, groups=w), _image, _WIDTHS, (32, 64, 96, 128)
    ),
    'grouped': Layer(
        lambda w: nn.Conv2d(w * _GROUPS, w * _GROUPS, 3, padding=1, groups=_GROUPS),
        lambda w: _image(w * _GROUPS),
        _PER_GROUP,
        (16, 32, 64),
    ),
    'first': Layer(
        lambda w: nn.Conv2d(3, w, 3, stride=2, padding=1),
        lambda w: torch.randn(1, 3, 4 * _SIDE, 4 * _SIDE),
        _WIDTHS,
        (32, 64, 96, 128),
    ),
    'linear': Layer(
        lambda w: nn.Linear(w, w), lambda w: torch.randn(1, _TOKENS, w), _WIDTHS, (32, 64, 96, 128)
    ),
}
"""Kind of layer -> how the probe builds it."""


@dataclass(frozen=True)
class WidthProbe:
    """What the probe measured.

    Attributes:
        seconds: kind of layer -> width -> seconds of a pass; for grouped layers, the width is the
            number of channels in each group.
        machine: what the times depend on: processor, threads, versions.
    """

    seconds: Mapping[str, Mapping[int, float]]
    machine: Mapping[str, str]

    def excess(self, kind: str, width: int) -> float:
        """Return the time of a width over that of an ideal layer, which has no steps."""
        seconds, ideal = self.seconds[kind], LAYERS[kind].ideal
        return seconds[width] / _interpolated(width, ideal, [seconds[w] for w in ideal])

    def grid_excess(self, kind: str, grid: int) -> float:
        """Return the median excess of widths that are multiples of a grid, and of no larger one."""
        own = [w for w in LAYERS[kind].widths if _grid_of(w) == grid]
        return statistics.median(self.excess(kind, width) for width in own) if own else 1.0

    def factor(self, kind: str, width: int) -> float:
        """Return the median excess of the widths that are on the same grid as one."""
        return self.grid_excess(kind, _grid_of(width))

    def grid(self, kind: str) -> int:
        """Return the smallest grid of fast widths: none of the larger ones is clearly slower."""
        slow = [grid for grid in GRIDS if self.grid_excess(kind, grid) > TOLERANCE]
        return min(2 * max(slow), GRIDS[-1]) if slow else 1


def _grid_of(width: int) -> int:
    """Return the largest of the grids that a width is a multiple of."""
    return max(grid for grid in GRIDS if width % grid == 0)


def _interpolated(width: int, widths: Sequence[int], seconds: Sequence[float]) -> float:
    """Return the time of a width between others, on a line in logarithms."""
    pairs = list(itertools.pairwise(zip(widths, seconds, strict=True)))
    (low, fast), (high, slow) = next((p for p in pairs if width <= p[1][0]), pairs[-1])
    slope = math.log(slow / fast) / math.log(high / low)
    return fast * (width / low) ** slope


def probe(runtime: Runtime) -> WidthProbe:
    """Measure the widths of a runtime on this machine, or read them from the cache.

    Args:
        runtime: an installed runtime.
    """
    key = {
        'runtime': runtime.name,
        'version': _VERSION,
        'processor': processor(),
        'threads': runtime.threads,
        'versions': runtime.versions(),
    }
    machine = {'processor': processor(), 'threads': str(runtime.threads), **runtime.versions()}
    return cached(
        'widths', key, lambda: _measured(runtime), lambda f: WidthProbe(_read(f), machine)
    )


def _measured(runtime: Runtime) -> dict[str, Any]:
    cases = [(kind, width) for kind, layer in LAYERS.items() for width in layer.widths]
    with fixed_seed(0):
        layers = [(LAYERS[k].build(w).eval(), LAYERS[k].inputs(w)) for k, w in cases]
        sessions = runtime.layer_sessions(layers)
    passes = [s.bind(inputs) for s, (_, inputs) in zip(sessions, layers, strict=True)]
    times = measure(
        passes,
        threads=runtime.threads,
        repeats=_REPEATS,
        warmup=_WARMUP,
        clock=runtime.clock,
        settle=False,
    )
    found: dict[str, dict[str, float]] = {kind: {} for kind in LAYERS}
    for (kind, width), timed in zip(cases, times, strict=True):
        found[kind][str(width)] = timed.fastest
    return found


def _read(field: Field) -> dict[str, dict[int, float]]:
    return {
        kind: {w: field[kind][str(w)].number(1e-12) for w in layer.widths}
        for kind, layer in LAYERS.items()
    }
