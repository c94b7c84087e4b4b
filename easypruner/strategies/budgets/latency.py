"""Latency: measures the time of forward passes on this machine."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from easypruner.base.checks import check_share
from easypruner.base.modules import copy_of
from easypruner.base.nested import map_tensors
from easypruner.graph import ChannelGraph, Limits
from easypruner.graph.graph import prune
from easypruner.graph.recording.tape import call_arguments
from easypruner.runtimes.timing import Reading
from easypruner.strategies.budgets.latency_table import LatencyTable, Savings, Together


@dataclass(frozen=True)
class TimedPair:
    """The times of a pruned network and of the whole one, measured alternately.

    Attributes:
        whole: the seconds of a pass of the whole network.
        pruned: the seconds of a pass of the pruned network.
        ratio: the ratio of two consecutive passes, pruned to whole.
    """

    whole: Reading
    pruned: Reading
    ratio: Reading


class Stopwatch:
    """Measures forward passes on a graph's example inputs, in evaluation mode.

    The model stays unchanged, because copies run. Passes of the whole and of a pruned network
    alternate, so that other load on the machine affects both.

    Args:
        graph: the channel graph of the model; everything runs on the model's device.
        repeats: the number of measured passes of each network.
        warmup: the number of passes of each network before these.
    """

    def __init__(self, graph: ChannelGraph, repeats: int = 20, warmup: int = 3) -> None:
        self._graph = graph
        self._repeats = repeats
        self._warmup = warmup
        device = next(iter(graph.model.parameters()), torch.empty(0)).device
        self._arguments = call_arguments(map_tensors(graph.example_inputs, lambda t: t.to(device)))
        backend: Any = getattr(torch, device.type, None)
        self._synchronize = getattr(backend, 'synchronize', lambda: None)
        self._whole = copy_of(graph.model).eval()

    def compare(self, masks: Mapping[str, Tensor] | None = None) -> TimedPair:
        """Prune a copy by ``masks``; measure it and the whole network."""
        pruned = copy_of(self._whole)
        if masks:
            prune(pruned, masks, graph=self._graph.on(pruned))
        passes = range(self._warmup + self._repeats)
        pairs = [self._pair(pruned, number) for number in passes][self._warmup :]
        return TimedPair(
            whole=Reading.of([whole for whole, _ in pairs]),
            pruned=Reading.of([seconds for _, seconds in pairs]),
            ratio=Reading.of([seconds / whole for whole, seconds in pairs]),
        )

    def _pair(self, pruned: nn.Module, number: int) -> tuple[float, float]:
        """Return the seconds of the whole and of the pruned network; each runs first in turn."""
        if number % 2:
            seconds = self._seconds(pruned)
            return self._seconds(self._whole), seconds
        return self._seconds(self._whole), self._seconds(pruned)

    @torch.no_grad()
    def _seconds(self, model: nn.Module) -> float:
        positional, named = self._arguments
        self._synchronize()
        start = perf_counter()
        model(*positional, **named)
        self._synchronize()
        return perf_counter() - start


def measure_table(
    graph: ChannelGraph,
    path: str | os.PathLike[str],
    *,
    shares: Sequence[float] = (0.25, 0.5, 0.75),
    repeats: int = 20,
    warmup: int = 3,
) -> LatencyTable:
    """Measure the time that pruning each group saves on this machine, and write it to a file.

    Each group alone is cut to some shares of its units, and to the fewest units that its limits
    allow. Then all groups are cut at once. Each measurement takes ``2 * (repeats + warmup)``
    passes.

    Args:
        graph: the channel graph of the network, on the device and the inputs to measure with.
        path: the path of the JSON file to write.
        shares: the shares of a group's units that are kept, from 0 to 1.
        repeats: the number of measured passes of each network.
        warmup: the number of passes of each network before these.

    Raises:
        ConfigError: a value in ``shares`` is not a share.
    """
    for share in shares:
        check_share(share, 'shares', 'measure_table')
    stopwatch = Stopwatch(graph, repeats, warmup)
    whole = stopwatch.compare().whole

    def saved(masks: Mapping[str, Tensor]) -> tuple[float, float]:
        ratio = stopwatch.compare(masks).ratio
        return whole.median * (1 - ratio.median), whole.median * ratio.spread

    table = tabulate(graph, whole, saved, shares)
    table.save(path)
    return table


def tabulate(
    graph: ChannelGraph,
    whole: Reading,
    saved: Callable[[Mapping[str, Tensor]], tuple[float, float]],
    shares: Sequence[float],
) -> LatencyTable:
    """Make a table.

    Args:
        graph: the channel graph of the network.
        whole: the seconds of a pass of the whole network.
        saved: a function that returns the seconds by which masks shorten a pass, and their spread.
        shares: the shares of a group's units that are kept, from 0 to 1.
    """

    def saved_at(kept: Mapping[str, int]) -> tuple[float, float]:
        return saved({name: torch.arange(graph.groups[name].size) < n for name, n in kept.items()})

    widths = {
        name: _widths(group.size, graph.limits.get(name, Limits()), shares)
        for name, group in graph.groups.items()
    }
    groups = {}
    for name, group in graph.groups.items():
        kept = tuple(sorted({*widths[name]} - {group.size}))
        groups[name] = Savings(group.size, kept, *_columns(saved_at({name: k}) for k in kept))
    # From the widest to the narrowest network, so that the sums of the savings ascend.
    steps = [
        dict(zip(widths, counts, strict=True)) for counts in zip(*widths.values(), strict=True)
    ]
    together = Together(
        tuple(Savings.total(groups, kept) for kept in steps), *_columns(map(saved_at, steps))
    )
    return LatencyTable(
        whole.median, whole.spread, whole.count, describe_machine(graph), groups, together
    )


def _widths(size: int, limits: Limits, shares: Sequence[float]) -> tuple[int, ...]:
    """Return the allowed width nearest to each share, in descending order, and the smallest."""
    nearest_to = limits.nearest_widths(size)
    counts = (round(share * size) for share in sorted(shares, reverse=True))
    return tuple(int(nearest_to[count]) for count in (*counts, 0))


def _columns(rows: Iterable[tuple[float, float]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the first values and the second values of pairs."""
    found = list(rows)
    return tuple(first for first, _ in found), tuple(second for _, second in found)


def describe_machine(graph: ChannelGraph) -> dict[str, str]:
    """Describe the device, the machine and the torch version that a network runs on."""
    tensor: Any = next(iter(graph.model.parameters()), torch.empty(0))
    on_gpu = tensor.device.type == 'cuda'
    return {
        'device': torch.cuda.get_device_name(tensor.device) if on_gpu else str(tensor.device),
        'processor': platform.processor() or platform.machine(),
        'system': platform.platform(),
        'threads': str(torch.get_num_threads()),
        'torch': torch.__version__,
    }
