"""What the sections of benchmarks/gpu.py share: sizes, networks and their cuts, and a clock."""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

import easypruner
from easypruner.errors import EasyPrunerError
from easypruner.graph import ArchitectureRecord, ChannelGraph, Masks

KEEP = 0.5
UNPRUNED = 'unpruned'


class UnavailableError(Exception):
    """There is nothing to measure here, for a reason that is no failure."""


@dataclass(frozen=True)
class Job:
    """A measurement.

    Attributes:
        name: a name that no other job of its section has.
        run: returns the result, as values of JSON.
        seconds: what it is expected to take on a card of the class of an H200.
    """

    name: str
    run: Callable[[], Mapping[str, Any]]
    seconds: float


def attempt(run: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """Return the result of a measurement, or why there is none."""
    try:
        return dict(run())
    except UnavailableError as error:
        return {'unavailable': str(error)}
    except ModuleNotFoundError as error:
        return {'unavailable': f'{error.name} is not installed'}
    except Exception as error:  # A failure is a result; what comes after still runs.
        return {'failed': f'{type(error).__name__}: {error}'}


@dataclass(frozen=True)
class Size:
    """What is measured, and how long.

    Attributes:
        networks: names of torchvision, or ``'small'``.
        checked: the network on which regularizers are checked.
        trained: the network whose training steps are measured.
        side: of the images.
        grids: values of ``round_to``, in the order in which they are measured.
        batches: images in a pass.
        training_batch: images in a training step.
        windows: whose median is taken.
        window: seconds of a window; it has at least one pass.
        stage_epochs: of the trainings that compare a stage with a bare Runner.
        stage_pairs: of these trainings, after one that fills caches.
        compiler: the backend of torch.compile.
    """

    networks: tuple[str, ...]
    checked: str
    trained: str
    side: int
    grids: tuple[int, ...]
    batches: tuple[int, ...]
    training_batch: int
    windows: int
    window: float
    stage_epochs: int
    stage_pairs: int
    compiler: str


FULL = Size(
    networks=('resnet50', 'mobilenet_v2'),
    checked='resnet18',
    trained='resnet50',
    side=224,
    grids=(8, 1, 16, 32, 64),
    batches=(1, 256, 32),
    training_batch=128,
    windows=11,
    window=0.03,
    stage_epochs=4,
    stage_pairs=3,
    compiler='inductor',
)
SHRUNK = Size(
    networks=('small',),
    checked='small',
    trained='small',
    side=16,
    grids=(8, 1),
    batches=(2,),
    training_batch=4,
    windows=3,
    window=0.0,
    stage_epochs=1,
    stage_pairs=1,
    compiler='eager',
)


class Small(nn.Module):
    """A network with a residual branch, to try the script."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _block(3, 16)
        self.branch = nn.Sequential(_block(16, 24), nn.Conv2d(24, 16, 3, 1, 1, bias=False))
        self.norm = nn.BatchNorm2d(16)
        self.last = _block(16, 32)
        self.head = nn.Linear(32, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        stem = self.stem(images)
        both = torch.relu(stem + self.norm(self.branch(stem)))
        return self.head(self.last(both).mean((2, 3)))


def _block(inputs: int, outputs: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


@dataclass(frozen=True)
class Cut:
    """A pruned network.

    Attributes:
        model: the network, in float32 and in evaluation mode.
        record: of the cut.
        left: the share of MACs that is left.
    """

    model: nn.Module
    record: ArchitectureRecord
    left: float


@dataclass
class Bench:
    """The device, the sizes, and the networks, which are made when they are first used."""

    device: torch.device
    size: Size
    _models: dict[str, nn.Module] = field(default_factory=dict)
    _cuts: dict[tuple[str, int], Cut | str] = field(default_factory=dict)
    _kept: dict[Hashable, Any] = field(default_factory=dict)

    @property
    def is_cuda(self) -> bool:
        """Whether the device is a GPU of NVIDIA."""
        return self.device.type == 'cuda'

    def once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Return what a function makes; it is made once for each key."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def wait(self) -> None:
        """Wait for what the device was given to do."""
        if self.is_cuda:
            torch.cuda.synchronize(self.device)

    def images(self, batch: int) -> Tensor:
        """Return random images in float32."""
        draw = torch.Generator().manual_seed(0)
        shape = (batch, 3, self.size.side, self.size.side)
        return torch.rand(shape, generator=draw).to(self.device)

    def model(self, name: str) -> nn.Module:
        """Return a network with random weights, in evaluation mode. It must not be changed."""
        if name not in self._models:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                build = Small if name == 'small' else _torchvision(name)
                self._models[name] = build().to(self.device).eval()
        return self._models[name]

    def graph(self, model: nn.Module, grid: int = 1) -> ChannelGraph:
        """Trace a network."""
        return easypruner.trace(model, self.images(1), limits=dict(round_to=grid))

    def cut(self, name: str, grid: int) -> Cut:
        """Return a network at half its MACs, by L1 norms, with widths on a grid.

        Raises:
            UnavailableError: the grid does not allow it.
        """
        if (name, grid) not in self._cuts:
            self._cuts[name, grid] = self._made(name, grid)
        found = self._cuts[name, grid]
        if isinstance(found, str):
            raise UnavailableError(found)
        return found

    def _made(self, name: str, grid: int) -> Cut | str:
        model = copy.deepcopy(self.model(name))
        graph = self.graph(model, grid)
        try:
            masks = half(graph)
        except EasyPrunerError as error:
            return str(error)
        left = graph.cost(masks).macs / graph.cost().macs
        return Cut(model, easypruner.prune(model, masks, graph=graph), left)


def _torchvision(name: str) -> Callable[[], nn.Module]:
    return lambda: torchvision.models.get_model(name, weights=None)


def half(graph: ChannelGraph) -> Masks:
    """Return masks that keep half of the MACs, by the L1 norms of filters."""
    source = easypruner.sources.L1Norm(budget=easypruner.budgets.Macs(KEEP))
    masks: Masks = source.select(graph, easypruner.Context())
    return masks


def alternating(calls: Mapping[str, Callable[[], object]], bench: Bench) -> dict[str, list[float]]:
    """Return the seconds of a pass of each function, for windows in which they take turns.

    Args:
        calls: label -> a function that makes a pass.
        bench: the device and the sizes.
    """
    passes = {}
    for label, call in calls.items():
        for _ in range(3):
            call()
        bench.wait()
        passes[label] = max(math.ceil(bench.size.window / _seconds(call, 1, bench)), 1)
    found: dict[str, list[float]] = {label: [] for label in calls}
    for window in range(bench.size.windows):
        order = list(calls) if window % 2 else list(calls)[::-1]
        for label in order:
            found[label].append(_seconds(calls[label], passes[label], bench))
    return found


def _seconds(call: Callable[[], object], passes: int, bench: Bench) -> float:
    bench.wait()
    start = time.perf_counter()
    for _ in range(passes):
        call()
    bench.wait()
    return (time.perf_counter() - start) / passes


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Return the median of values and their quartiles."""
    # Before Python 3.13, a single value has no quartiles.
    low, _, high = statistics.quantiles([*values, *values], n=4, method='inclusive')
    return {'median': statistics.median(values), 'quartiles': [low, high]}


def ratio(values: Sequence[float], to: Sequence[float]) -> dict[str, Any]:
    """Return the median and the quartiles of the ratios of windows."""
    return spread([value / other for value, other in zip(values, to, strict=True)])


def peak_memory(call: Callable[[], object], bench: Bench) -> float | None:
    """Return the MiB that a call needs beyond what is allocated before it; None on a CPU."""
    if not bench.is_cuda:
        return None
    # The first call compiles, and tries kernels.
    call()
    bench.wait()
    before = torch.cuda.memory_allocated(bench.device)
    torch.cuda.reset_peak_memory_stats(bench.device)
    call()
    bench.wait()
    return (torch.cuda.max_memory_allocated(bench.device) - before) / 2**20


def weight_memory(model: nn.Module) -> float:
    """Return the MiB of the parameters and buffers of a network."""
    tensors = [*model.parameters(), *model.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors) / 2**20
