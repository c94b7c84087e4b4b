"""Will it be faster? The time of each group in a runtime, and what a cut could save of it."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import torch
from torch import Tensor

from easypruner.base.checks import check_share
from easypruner.base.modules import copy_of
from easypruner.graph import ChannelGraph, Limits
from easypruner.runtimes.forecast import Forecast
from easypruner.runtimes.layer_times import LayerTimes
from easypruner.runtimes.layers import device_of, inputs_on_device
from easypruner.runtimes.machine import describe_runtime
from easypruner.runtimes.passes import synchronized
from easypruner.runtimes.program import advising_dtype
from easypruner.runtimes.runtime import Runtime
from easypruner.runtimes.timing import Reading, measure

_STEPS = 16
"""A group is narrowed in at most about this many steps."""
_HALVINGS = 12


@dataclass(frozen=True)
class GroupTime:
    """The time of a group in a runtime.

    Attributes:
        name: the name of the group.
        units: the number of units.
        seconds: the predicted time of the layers that it cuts.
        half: the number of units that stay when half of it goes, on the grid of its widths.
        saved: the seconds by which a pass is then predicted to be shorter.
    """

    name: str
    units: int
    seconds: float
    half: int
    saved: float


@dataclass(frozen=True)
class MacsTime:
    """The predicted time that is left under a limit on the MACs, as shares of the whole.

    Attributes:
        macs: the limit.
        even: the time if every group loses the same share of its units.
        best: about the least time that any choice of units could leave, if no more MACs than
            these are removed.
    """

    macs: float
    even: float
    best: float


@dataclass(frozen=True)
class Speed:
    """The time of a network in a runtime, and what a cut could save.

    Attributes:
        runtime: the runtime, its version, threads and processor.
        seconds: the measured time of a pass.
        layers: the predicted share of all convolutions and linear layers in it.
        groups: the groups, in the order of the forward pass.
        budget: what a limit on the MACs could reach; None if there is nothing to remove.
    """

    runtime: str
    seconds: Reading
    layers: float
    groups: tuple[GroupTime, ...]
    budget: MacsTime | None


def speed(graph: ChannelGraph, runtime: Runtime, macs: float = 0.5, repeats: int = 20) -> Speed:
    """Measure a network in a runtime, and predict what a cut saves of its time.

    The predictions come from the times of the network's layers, each measured alone over some
    widths, once on each machine. Groups keep widths that their limits allow.

    Args:
        graph: the channel graph of the network. With the runtime as its target, the limits are the
            grid of fast widths.
        runtime: the runtime.
        macs: the share of the MACs of the limit that is looked at.
        repeats: the number of measured passes.

    Raises:
        ConfigError: ``macs`` is not a share.
        EasyPrunerError: the runtime is not installed, or cannot express the network.
    """
    check_share(macs, 'macs', 'speed')
    device, inputs = device_of(graph), inputs_on_device(graph)
    times = LayerTimes(runtime, device)
    with advising_dtype(graph.model):
        session = runtime.fixed_session(copy_of(graph.model).eval(), inputs)
        run = synchronized(session.bind(inputs), device)
    (timed,) = measure([run], threads=runtime.threads, repeats=repeats, clock=times.clock)
    forecast = Forecast(graph, times, times.at_first(timed.seconds.median))
    return Speed(
        runtime=describe_runtime(runtime, device),
        seconds=timed.seconds,
        layers=sum(forecast.by_layer().values()) / forecast.whole,
        groups=_groups(graph, forecast),
        budget=_budget(graph, forecast, macs) if graph.groups else None,
    )


def _groups(graph: ChannelGraph, forecast: Forecast) -> tuple[GroupTime, ...]:
    by_layer, whole = forecast.by_layer(), forecast.seconds()
    found = []
    for name, group in graph.groups.items():
        layers = dict.fromkeys(member.module for member in group.members)
        seconds = sum(by_layer.get(path, 0.0) for path in layers)
        half = int(_limits(graph, name).nearest_widths(group.size)[group.size // 2])
        saved = whole - forecast.seconds({name: _first(group.size, half)})
        found.append(GroupTime(name, group.size, seconds, half, saved))
    return tuple(found)


def _budget(graph: ChannelGraph, forecast: Forecast, macs: float) -> MacsTime | None:
    whole = graph.cost().macs
    even = _evenly(graph, macs)
    if not whole or even is None:
        return None
    best = _quickest(graph, forecast, macs * whole)
    seconds = [forecast.seconds(masks) for masks in (even, best)]
    return MacsTime(macs, seconds[0] / forecast.whole, min(seconds) / forecast.whole)


def _evenly(graph: ChannelGraph, macs: float) -> dict[str, Tensor] | None:
    """Return masks that keep the same share of each group and meet a share of the MACs."""

    def keeping(share: float) -> dict[str, Tensor]:
        return {
            name: _first(group.size, int(_widths(graph, name)[round(share * group.size)]))
            for name, group in graph.groups.items()
        }

    limit = macs * graph.cost().macs
    if graph.cost(keeping(0.0)).macs > limit:
        return None
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if graph.cost(keeping(middle)).macs > limit else (middle, high)
    return keeping(low)


def _quickest(graph: ChannelGraph, forecast: Forecast, macs: float) -> dict[str, Tensor]:
    """Return masks that save much time for the MACs that they remove, down to a number of MACs.

    Step by step, the group is narrowed that saves most time per MAC.
    """
    kept = {name: group.size for name, group in graph.groups.items()}
    steps = {name: _narrower(graph, name) for name in graph.groups}
    state = _State(graph, forecast, kept)
    heap = [(-state.rate(name, step[0]), name) for name, step in steps.items() if step]
    heapq.heapify(heap)
    while heap:
        _, name = heapq.heappop(heap)
        width = steps[name][0]
        if state.macs_with(name, width) < macs:
            continue
        # Other groups have changed what this one saves.
        now = -state.rate(name, width)
        if heap and now > heap[0][0]:
            heapq.heappush(heap, (now, name))
            continue
        state.narrow(name, width)
        steps[name] = steps[name][1:]
        if steps[name]:
            heapq.heappush(heap, (-state.rate(name, steps[name][0]), name))
    return state.masks()


class _State:
    """The widths of all groups during a search, with their time and MACs."""

    def __init__(self, graph: ChannelGraph, forecast: Forecast, kept: dict[str, int]) -> None:
        self._graph = graph
        self._forecast = forecast
        self._kept = kept
        self._seconds, self._macs = forecast.seconds(), graph.cost().macs

    def masks(self) -> dict[str, Tensor]:
        """Return masks that keep the widths."""
        sizes = {name: group.size for name, group in self._graph.groups.items()}
        return {name: _first(size, self._kept[name]) for name, size in sizes.items()}

    def _with(self, name: str, width: int) -> dict[str, Tensor]:
        size = self._graph.groups[name].size
        return {**self.masks(), name: _first(size, width)}

    def macs_with(self, name: str, width: int) -> int:
        """Return the MACs when a group has another width."""
        return self._graph.cost(self._with(name, width)).macs

    def rate(self, name: str, width: int) -> float:
        """Return the seconds that a narrower group saves for each MAC that goes."""
        masks = self._with(name, width)
        gone = self._macs - self._graph.cost(masks).macs
        return (self._seconds - self._forecast.seconds(masks)) / max(gone, 1)

    def narrow(self, name: str, width: int) -> None:
        """Give a group another width."""
        self._kept[name] = width
        masks = self.masks()
        self._seconds, self._macs = self._forecast.seconds(masks), self._graph.cost(masks).macs


def _narrower(graph: ChannelGraph, name: str) -> tuple[int, ...]:
    """Return widths to which a group can be narrowed step by step, the widest first."""
    size = graph.groups[name].size
    widths = _limits(graph, name).widths(size)
    wanted = [size * step // _STEPS for step in range(_STEPS)]
    nearest = _widths(graph, name)[wanted].tolist()
    return tuple(w for w in sorted({*nearest, widths[0]}, reverse=True) if w < size)


def _limits(graph: ChannelGraph, name: str) -> Limits:
    return graph.limits.get(name, Limits())


def _widths(graph: ChannelGraph, name: str) -> Tensor:
    """Return the nearest allowed width for each number of units."""
    return _limits(graph, name).nearest_widths(graph.groups[name].size)


def _first(size: int, kept: int) -> Tensor:
    return torch.arange(size) < kept
