"""Latency: how long forward passes take on the machine in hand."""

from __future__ import annotations

import math
import os
import platform
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from easypruner.base.checks import check_share
from easypruner.base.modules import copy_of
from easypruner.base.nested import map_tensors
from easypruner.graph import ChannelGraph
from easypruner.graph.graph import prune
from easypruner.graph.limits import Limits
from easypruner.graph.recording.tape import call_arguments
from easypruner.strategies.budgets.latency_table import LatencyTable, Savings, Together, added_up

# Of a normal distribution: its deviation over its median absolute deviation, and the error of a
# median over that of a mean.
_DEVIATION = 1.4826
_MEDIAN_ERROR = 1.2533


@dataclass(frozen=True)
class Reading:
    """What was measured several times.

    Attributes:
        median: of all times.
        spread: their median absolute deviation.
        count: how many there were.
    """

    median: float
    spread: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Reading:
        """Return the reading of some values, one at the least."""
        median = statistics.median(values)
        spread = statistics.median(abs(value - median) for value in values)
        return cls(median, spread, len(values))

    @property
    def noise(self) -> float:
        """How far the median itself may be off: twice its standard error."""
        return 2 * _MEDIAN_ERROR * _DEVIATION * self.spread / math.sqrt(self.count)

    def __str__(self) -> str:
        return f'{self.median:.4g} ± {self.spread:.2g}'


@dataclass(frozen=True)
class Comparison:
    """A pruned network beside the whole one.

    Attributes:
        whole: seconds of a pass of the whole network.
        pruned: seconds of a pass of the pruned one.
        ratio: of passes that followed each other, pruned over whole.
    """

    whole: Reading
    pruned: Reading
    ratio: Reading


class Stopwatch:
    """Measures forward passes on a graph's example inputs, in evaluation mode, on copies.

    The model is left as it was. Its passes and those of what it is compared with take turns, so
    that their ratio is that of one time, whatever else the machine has to do.

    Args:
        graph: of the model, on whose device everything runs.
        repeats: passes of each network that count.
        warmup: passes of each network before these.
    """

    def __init__(self, graph: ChannelGraph, repeats: int = 20, warmup: int = 3) -> None:
        self._graph = graph
        self._repeats = repeats
        self._warmup = warmup
        tensor = next(iter(graph.model.parameters()), torch.empty(0))
        device = tensor.device
        self._arguments = call_arguments(map_tensors(graph.example_inputs, lambda t: t.to(device)))
        wait: Callable[[], object] | None
        wait = getattr(getattr(torch, device.type, None), 'synchronize', None)
        self._wait = wait or (lambda: None)
        self._whole = copy_of(graph.model).eval()

    def compare(self, masks: Mapping[str, Tensor] | None = None) -> Comparison:
        """Measure the network under ``masks``, really pruned, beside the whole one."""
        pruned = copy_of(self._whole)
        if masks:
            prune(pruned, masks, graph=self._graph.on(pruned))
        for _ in range(self._warmup):
            self._seconds(self._whole)
            self._seconds(pruned)
        turns = [self._turn(pruned, turn) for turn in range(self._repeats)]
        return Comparison(
            whole=Reading.of([whole for whole, _ in turns]),
            pruned=Reading.of([seconds for _, seconds in turns]),
            ratio=Reading.of([seconds / whole for whole, seconds in turns]),
        )

    def _turn(self, pruned: nn.Module, turn: int) -> tuple[float, float]:
        """Return the seconds of the whole and of the pruned network; either is first in turn."""
        if turn % 2:
            seconds = self._seconds(pruned)
            return self._seconds(self._whole), seconds
        return self._seconds(self._whole), self._seconds(pruned)

    @torch.no_grad()
    def _seconds(self, model: nn.Module) -> float:
        positional, named = self._arguments
        self._wait()
        start = perf_counter()
        model(*positional, **named)
        self._wait()
        return perf_counter() - start


def measure_table(
    graph: ChannelGraph,
    path: str | os.PathLike[str],
    *,
    shares: Sequence[float] = (0.25, 0.5, 0.75),
    repeats: int = 20,
    warmup: int = 3,
) -> LatencyTable:
    """Measure what pruning each group saves on the machine in hand, and write it to a file.

    Each group is cut to the fewest units that its limits allow and to some shares of its units,
    by itself; then all of them are at once. That takes ``2 * (repeats + warmup)`` passes each time.

    Args:
        graph: of the network, on its device and on the inputs that count.
        path: of the JSON file to write.
        shares: of a group's units, in 0..1.
        repeats: passes of each network that count.
        warmup: passes of each network before these.

    Raises:
        ConfigError: ``shares`` that are none.
    """
    for share in shares:
        check_share(share, 'shares', 'measure_table')
    watch = Stopwatch(graph, repeats, warmup)
    whole = watch.compare().whole

    def saved(kept: Mapping[str, int]) -> tuple[float, float]:
        """Return the seconds that a pass is shorter, and their spread."""
        masks = {name: torch.arange(graph.groups[name].size) < n for name, n in kept.items()}
        ratio = watch.compare(masks).ratio
        return whole.median * (1 - ratio.median), whole.median * ratio.spread

    widths = {
        name: _widths(group.size, graph.limits.get(name, Limits()), shares)
        for name, group in graph.groups.items()
    }
    groups = {}
    for name, group in graph.groups.items():
        kept = tuple(sorted({*widths[name]} - {group.size}))
        groups[name] = Savings(group.size, kept, *_columns(saved({name: k}) for k in kept))
    # From the widest to the narrowest: with fewer units of every group, the sum ascends.
    steps = [
        dict(zip(widths, counts, strict=True)) for counts in zip(*widths.values(), strict=True)
    ]
    together = Together(
        tuple(added_up(groups, kept) for kept in steps), *_columns(map(saved, steps))
    )
    table = LatencyTable(whole.median, whole.spread, repeats, machine(graph), groups, together)
    table.save(path)
    return table


def _widths(size: int, limits: Limits, shares: Sequence[float]) -> tuple[int, ...]:
    """Return the allowed width nearest to each share, descending, and the least there is."""
    nearest_to = limits.nearest_widths(size)
    counts = (round(share * size) for share in sorted(shares, reverse=True))
    return tuple(int(nearest_to[count]) for count in (*counts, 0))


def _columns(rows: Iterable[tuple[float, float]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    found = list(rows)
    return tuple(first for first, _ in found), tuple(second for _, second in found)


def machine(graph: ChannelGraph) -> dict[str, str]:
    """Return a description of what a graph's network runs on."""
    tensor: Any = next(iter(graph.model.parameters()), torch.empty(0))
    on_gpu = tensor.device.type == 'cuda'
    return {
        'device': torch.cuda.get_device_name(tensor.device) if on_gpu else str(tensor.device),
        'processor': platform.processor() or platform.machine(),
        'system': platform.platform(),
        'threads': str(torch.get_num_threads()),
        'torch': torch.__version__,
    }
