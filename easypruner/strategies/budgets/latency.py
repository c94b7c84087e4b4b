"""Stopwatch: measures pruned networks beside the unpruned one in a runtime; and latency tables."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from easypruner.base.checks import check_share
from easypruner.base.modules import copy_of
from easypruner.graph import ChannelGraph, Limits
from easypruner.graph.coupling.cost import count_kept
from easypruner.graph.pruning import prune
from easypruner.graph.recording.tape import call_arguments
from easypruner.runtimes.forecast import Forecast
from easypruner.runtimes.layer_times import LayerTimes
from easypruner.runtimes.layers import device_of, inputs_on_device
from easypruner.runtimes.machine import describe_runtime, device_name, runtime_arguments
from easypruner.runtimes.passes import loaded, synchronized
from easypruner.runtimes.runtime import Runtime
from easypruner.runtimes.timing import Clock, Pass, Reading, measure
from easypruner.strategies.budgets.latency_table import LatencyTable, Savings, Together

_MOST_KEPT = 2
_FEWEST = 2


@dataclass(frozen=True)
class TimedPair:
    """The times of a pruned network and of the whole one, measured alternately.

    Attributes:
        whole: the seconds of a pass of the whole network.
        pruned: the seconds of a pass of the pruned network.
        ratio: the ratio of two passes of the same round, pruned to whole.
    """

    whole: Reading
    pruned: Reading
    ratio: Reading


class Stopwatch:
    """Measures forward passes on a graph's example inputs, in evaluation mode.

    The model stays unchanged, because copies run. Passes of the whole and of a pruned network
    alternate, so that other load on the machine affects both.

    Attributes:
        graph: the channel graph of the copy of the model.

    Args:
        graph: the channel graph of the model; everything runs on the model's device.
        repeats: the number of measured passes of each network.
        warmup: the number of passes of each network before these.
        runtime: the runtime; None for torch as the network runs here.
        clock: which clock.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        repeats: int = 20,
        warmup: int = 3,
        runtime: Runtime | None = None,
        clock: Clock = 'wall',
    ) -> None:
        self._runtime = runtime
        self._repeats = repeats
        self._rounds: dict[str, Any] = {'warmup': warmup, 'clock': clock}
        self._device = device_of(graph)
        self._inputs = inputs_on_device(graph)
        self._model = copy_of(graph.model).eval()
        self.graph = graph.on(self._model)
        self._whole = self._pass_of(self._model)
        self._pruned: dict[tuple[int, ...], Pass] = {}

    @property
    def threads(self) -> int:
        """The number of threads of a pass."""
        return torch.get_num_threads() if self._runtime is None else self._runtime.threads

    def compare(self, masks: Mapping[str, Tensor] | None = None, times: float = 1) -> TimedPair:
        """Prune a copy by ``masks``; measure it and the whole network.

        Args:
            masks: group -> bool tensor, True = keep. None for the whole network.
            times: a factor of the number of passes.
        """
        units = tuple(count_kept(masks or {}, self.graph.groups))
        if masks and units != tuple(group.size for group in self.graph.groups.values()):
            pruned = self._pruned.pop(units, None) or self._cut(masks)
            self._pruned[units] = pruned
            # A session takes as much memory as its network.
            for oldest in list(self._pruned)[:-_MOST_KEPT]:
                del self._pruned[oldest]
        else:
            pruned = self._whole
        repeats = max(round(times * self._repeats), _FEWEST)
        both = [self._whole, pruned]
        whole, other = measure(both, threads=self.threads, repeats=repeats, **self._rounds)
        return TimedPair(whole.seconds, other.seconds, other.ratio)

    def seconds(self, clock: Clock) -> float:
        """Return the seconds of a pass of the whole network, by another clock."""
        rounds = {**self._rounds, 'repeats': self._repeats, 'clock': clock}
        return measure([self._whole], threads=self.threads, **rounds)[0].seconds.median

    def _cut(self, masks: Mapping[str, Tensor]) -> Pass:
        pruned = copy_of(self._model)
        prune(pruned, masks, graph=self.graph.on(pruned))
        return self._pass_of(pruned)

    def _pass_of(self, model: nn.Module) -> Pass:
        """Return what runs a network once."""
        if self._runtime is not None:
            return loaded(self._runtime, model, self._inputs, self._device)
        positional, named = call_arguments(self._inputs)
        return synchronized(lambda: model(*positional, **named), self._device)


class Bench:
    """Measures and predicts the time of a network under masks, in a runtime.

    Attributes:
        shares: the predicted and the measured share of each pruned network so far.

    Args:
        stopwatch: measures networks in the runtime.
        runtime: the runtime.
    """

    def __init__(self, stopwatch: Stopwatch, runtime: Runtime) -> None:
        self.stopwatch = stopwatch
        self.runtime = runtime
        self.shares: list[tuple[float, float]] = []

    @cached_property
    def forecast(self) -> Forecast:
        """The forecast. It is made, and missing times of layers are measured, on first use."""
        graph = self.stopwatch.graph
        times = LayerTimes(self.runtime, device_of(graph))
        return Forecast(graph, times, times.at_first(self.stopwatch.seconds(times.clock)))


# Budgets are copied, and sessions cannot be. The network of a bench is a copy.
_BENCHES: WeakKeyDictionary[nn.Module, dict[Any, Bench]] = WeakKeyDictionary()
_MOST_BENCHES = 2


def bench_of(
    graph: ChannelGraph,
    runtime: Runtime,
    repeats: int = 20,
    warmup: int = 3,
    clock: Clock = 'wall',
) -> Bench:
    """Return the bench of a network, or that of an earlier call: to load networks takes seconds.

    Args:
        graph: the channel graph of the network.
        runtime: the runtime.
        repeats: the number of measured passes of each network.
        warmup: the number of passes of each network before these.
        clock: which clock.
    """
    arguments = str(runtime_arguments(runtime))
    # A cut replaces the groups.
    key = (*graph.groups.values(), runtime.name, arguments, repeats, warmup, clock)
    benches = _BENCHES.setdefault(graph.model, {})
    bench = benches.pop(key, None)
    if bench is None:
        bench = Bench(Stopwatch(graph, repeats, warmup, runtime, clock), runtime)
    benches[key] = bench
    for oldest in list(benches)[:-_MOST_BENCHES]:
        del benches[oldest]
    return bench


def measure_table(
    graph: ChannelGraph,
    path: str | os.PathLike[str],
    *,
    shares: Sequence[float] = (0.25, 0.5, 0.75),
    repeats: int = 20,
    warmup: int = 3,
    runtime: Runtime | None = None,
) -> LatencyTable:
    """Measure the time that pruning each group saves on this machine, and write it to a file.

    Each group alone is cut to some shares of its units, and to the fewest units that its limits
    allow. Then all groups are cut at once. Without a runtime, each of these networks is measured
    in torch, which takes ``2 * (repeats + warmup)`` passes. With a runtime, the times of single
    groups come from those of the layers, and the networks in which all groups are cut are measured.

    Args:
        graph: the channel graph of the network, on the device and the inputs to measure with.
        path: the path of the JSON file to write.
        shares: the shares of a group's units that are kept, from 0 to 1.
        repeats: the number of measured passes of each network.
        warmup: the number of passes of each network before these.
        runtime: the runtime.

    Raises:
        ConfigError: a value in ``shares`` is not a share.
    """
    for share in shares:
        check_share(share, 'shares', 'measure_table')
    stopwatch = Stopwatch(graph, repeats, warmup, runtime)
    whole = stopwatch.compare().whole

    def measured(masks: Mapping[str, Tensor]) -> tuple[float, float]:
        ratio = stopwatch.compare(masks).ratio
        return whole.median * (1 - ratio.median), whole.median * ratio.spread

    saved = measured
    if runtime is not None:
        forecast = Bench(stopwatch, runtime).forecast

        def predicted(masks: Mapping[str, Tensor]) -> tuple[float, float]:
            if len(masks) == len(graph.groups) > 1:
                return measured(masks)
            return whole.median * (1 - forecast.seconds(masks) / forecast.whole), 0.0

        saved = predicted
    table = tabulate(graph, whole, saved, shares, runtime)
    table.save(path)
    return table


def tabulate(
    graph: ChannelGraph,
    whole: Reading,
    saved: Callable[[Mapping[str, Tensor]], tuple[float, float]],
    shares: Sequence[float],
    runtime: Runtime | None = None,
) -> LatencyTable:
    """Make a table.

    Args:
        graph: the channel graph of the network.
        whole: the seconds of a pass of the whole network.
        saved: a function that returns the seconds by which masks shorten a pass, and their spread.
        shares: the shares of a group's units that are kept, from 0 to 1.
        runtime: the runtime; None for torch.
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
        whole.median, whole.spread, whole.count, describe_machine(graph, runtime), groups, together
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


def describe_machine(graph: ChannelGraph, runtime: Runtime | None = None) -> dict[str, str]:
    """Describe the device, the runtime and the versions that a network runs on."""
    device = device_of(graph)
    threads = torch.get_num_threads() if runtime is None else runtime.threads
    return {
        'device': str(device),
        'processor': device_name(device),
        'runtime': 'torch' if runtime is None else describe_runtime(runtime, device),
        'threads': str(threads),
        'torch': torch.__version__,
    }
