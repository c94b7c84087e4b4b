"""Widths off the grid: layers that would be as fast, or faster, with more channels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from easypruner.graph import ChannelGraph
from easypruner.runtimes.runtime import Runtime
from easypruner.runtimes.widths import LayerGrid, layer_grids

_SHOWN = 3


@dataclass(frozen=True)
class OffGrid:
    """A layer of a pruned network whose width is not on the grid of a runtime.

    Attributes:
        layer: the path of the layer.
        kind: its kind.
        channels: its width; of grouped layers, the channels of a group.
        next: the next width on the grid.
        factor: the measured time of such widths over that of a layer without steps; None if it
            was not measured.
    """

    layer: str
    kind: str
    channels: int
    next: int
    factor: float | None

    def __str__(self) -> str:
        excess = '' if self.factor is None else f', {self.factor:.2f} times as slow as it could be'
        return f'{self.layer} ({self.kind}): {self.channels} channels, next {self.next}{excess}'


def off_grid(
    graph: ChannelGraph, masks: Mapping[str, Tensor], runtime: Runtime
) -> tuple[OffGrid, ...]:
    """Return the layers that a cut leaves with widths off the grid, the slowest first.

    A group that loses nothing is not listed: its width is the network's own.

    Args:
        graph: the graph of the network before the cut.
        masks: the masks, True = keep.
        runtime: the runtime.
    """
    found = list(_found(graph, masks, runtime))
    return tuple(sorted(found, key=lambda entry: -(entry.factor or 0)))


def _found(graph: ChannelGraph, masks: Mapping[str, Tensor], runtime: Runtime) -> Iterator[OffGrid]:
    for name, group in graph.groups.items():
        mask = torch.as_tensor(masks.get(name, True))
        kept = int(mask.sum()) if mask.dim() else group.size
        if kept == group.size:
            continue
        for layer in layer_grids(graph, group, runtime.grid):
            if kept % layer.units:
                yield _entry(layer, kept, runtime)


def _entry(layer: LayerGrid, kept: int, runtime: Runtime) -> OffGrid:
    channels = kept * layer.per_unit
    factor = None if runtime.probe is None else runtime.probe.factor(layer.kind, channels)
    above = -(-channels // layer.channels) * layer.channels
    return OffGrid(layer.param.rpartition('.')[0], layer.kind, channels, above, factor)


def describe_off_grid(entries: tuple[OffGrid, ...]) -> str:
    """Return a line about the first of the layers; '' if there are none."""
    if not entries:
        return ''
    more = f'; and {len(entries) - _SHOWN} more' if len(entries) > _SHOWN else ''
    return f'{len(entries)} layers off the grid: ' + '; '.join(map(str, entries[:_SHOWN])) + more
