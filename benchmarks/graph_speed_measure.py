"""Time measurements: compared with Torch-Pruning, over the size of networks, and part by part."""

from __future__ import annotations

import contextlib
import copy
import functools
import gc
import importlib.util
import inspect
import math
import multiprocessing
import re
import signal
import statistics
import time
import tracemalloc
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from easypruner_plugins.lp_norm import L1Norm
from easypruner_plugins.ratio import Ratio
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import easypruner
from easypruner import Context
from easypruner.graph import ArchitectureRecord, ChannelGraph
from easypruner.graph import graph as graph_module
from easypruner.graph import tracing as tracing_module
from easypruner.graph.coupling import propagate as propagate_module
from easypruner.graph.recording.code_reads import find_reads
from easypruner.graph.trial import resolve as resolve_module

_KEEP = 0.5
_CLASSES = 1000
_NEW_MASKS = 200
# Seconds after which a slow run is not repeated.
_SLOW = 5.0

Phases = dict[str, float]
"""Part of the work -> seconds."""

_PARTS: tuple[tuple[str, Any, str], ...] = (
    ('tape: the forward pass on meta', tracing_module, '_record_tapes'),
    ('rules: axes and edges', resolve_module, 'propagate'),
    ('components and units', propagate_module, 'partition'),
    ('groups', tracing_module, 'make_groups'),
    ('trials and repairs', tracing_module, 'resolve'),
    ('scores: L1 norms', L1Norm, 'score'),
    ('masks: half of each group', Ratio, '__call__'),
    ('architecture record', ArchitectureRecord, 'of'),
    ('surgery', graph_module, 'cut'),
    ('cost: its model, and one evaluation', ChannelGraph, 'cost'),
)
"""The parts that are clocked: name, and the owner and name of the function that does the work."""


@functools.cache
def example() -> Tensor:
    """Return the input image of all networks, which is made once."""
    return torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))


def cut_with_easypruner(model: nn.Module, steps: int = 1) -> None:
    """Trace, then remove half of each group in equal steps, smallest L1 norms first."""
    graph = easypruner.trace(model, example())
    context = Context()
    for step in range(1, steps + 1):
        before, after = (1 - (1 - _KEEP) * done / steps for done in (step - 1, step))
        source = L1Norm(Ratio(keep=after / before, scope='layer'))
        easypruner.prune(model, source.select(graph, context), graph=graph)


def cut_with_torch_pruning(model: nn.Module, steps: int = 1) -> None:
    """Do the same with Torch-Pruning, which needs to know the classifier."""
    import torch_pruning as tp

    pruner = tp.pruner.BasePruner(
        model,
        example(),
        importance=tp.importance.MagnitudeImportance(p=1),
        pruning_ratio=1 - _KEEP,
        iterative_steps=steps,
        ignored_layers=[m for m in model.modules() if _outputs(m) == _CLASSES],
    )
    for _ in range(steps):
        pruner.step()


def _outputs(module: nn.Module) -> int | None:
    if isinstance(module, nn.Linear):
        return module.out_features
    return module.out_channels if isinstance(module, nn.Conv2d) else None


@dataclass(frozen=True)
class Duel:
    """The seconds of EasyPruner and of Torch-Pruning on one network.

    Attributes:
        name: the name of the network.
        operations: the number of operations of its forward pass.
        ours: the seconds of EasyPruner, best run.
        theirs: the seconds of Torch-Pruning, best run; None if it is not installed or fails.
        failure: the error of Torch-Pruning.
    """

    name: str
    operations: int
    ours: float
    theirs: float | None
    failure: str = ''

    @property
    def ratio(self) -> float:
        """Return the seconds of Torch-Pruning divided by those of EasyPruner."""
        return math.nan if self.theirs is None else self.theirs / self.ours


def duel(name: str, model: nn.Module, steps: int, repeats: int, limit: float) -> Duel:
    """Prune copies of ``model`` with both in turn, and return the best seconds of each."""
    ours, theirs, failure = math.inf, math.inf, ''
    if importlib.util.find_spec('torch_pruning') is None:
        failure = 'not installed'
    for _ in range(repeats):
        ours = min(ours, clock(lambda m: cut_with_easypruner(m, steps), model))
        if failure:
            continue
        try:
            with _limited(limit):
                theirs = min(theirs, clock(lambda m: cut_with_torch_pruning(m, steps), model))
        except Exception as error:  # any exception of Torch-Pruning
            failure = f'{type(error).__name__}: {error}'[:100]
        if max(ours, theirs) > _SLOW:
            break
    return Duel(name, operations(model), ours, None if failure else theirs, failure)


def warm_up(model: nn.Module) -> None:
    """Prune a copy of ``model`` with both once, to import modules and fill caches."""
    clock(cut_with_easypruner, model)
    if importlib.util.find_spec('torch_pruning') is not None:
        clock(cut_with_torch_pruning, model)


def clock(work: Callable[[nn.Module], object], model: nn.Module) -> float:
    """Return the seconds that ``work`` takes on a copy of ``model``, which must run afterwards."""
    model = copy.deepcopy(model)
    example()
    find_reads.cache_clear()
    gc.collect()
    start = time.process_time()
    work(model)
    seconds = time.process_time() - start
    with torch.no_grad():
        model(example())
    return seconds


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in a block that takes more than ``seconds`` of CPU time."""

    def stop(number: int, frame: object) -> None:
        raise TimeoutError(f'no end within {seconds:.0f} s')

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


class _Empty(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A mode that only counts operations: the lower bound of the time to record a tape."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += 1
        return func(*args, **(kwargs or {}))


def operations(model: nn.Module) -> int:
    """Return the number of ATen operations of a forward pass."""
    return _bare_forward(model)[0]


def _bare_forward(model: nn.Module) -> tuple[int, float]:
    """Return the operations of a forward pass on meta, and its seconds in an empty mode."""
    on_meta = copy.deepcopy(model).to('meta')
    with torch.no_grad(), _Empty() as mode:
        start = time.process_time()
        on_meta(example().to('meta'))
        return mode.operations, time.process_time() - start


# Over the size of networks


@dataclass(frozen=True)
class Growth:
    """The growth of seconds with operations over a family of networks: exponents of fitted powers.

    Attributes:
        operations: the number of operations of each network.
        seconds: the seconds of trace, scores, masks and cut.
        exponent: the exponent of these seconds.
        trace_exponent: the exponent of the seconds of the trace.
    """

    operations: tuple[int, ...]
    seconds: tuple[float, ...]
    exponent: float
    trace_exponent: float


def growth(models: Sequence[nn.Module], repeats: int) -> Growth:
    """Measure a family of networks of growing size."""
    counts = [operations(model) for model in models]
    seconds = [min(clock(cut_with_easypruner, m) for _ in range(repeats)) for m in models]
    traces = [min(clock(_trace, m) for _ in range(repeats)) for m in models]
    return Growth(
        tuple(counts), tuple(seconds), _exponent(counts, seconds), _exponent(counts, traces)
    )


def _trace(model: nn.Module) -> ChannelGraph:
    return easypruner.trace(model, example())


def _exponent(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


# Memory


@dataclass(frozen=True)
class Memory:
    """The peak memory of a trace and a cost, minus the memory before, in bytes.

    Attributes:
        model: the memory of the model's parameters and buffers.
        traced: the peak of Python objects and NumPy arrays, measured by tracemalloc.
        resident: the peak of the whole process, measured by the system; None if not available.
    """

    model: int
    traced: int
    resident: int | None


def peak_memory(model: nn.Module, warm_up: nn.Module) -> Memory:
    """Measure in a new process, which traces ``warm_up`` first."""
    context = multiprocessing.get_context('spawn')
    with context.Pool(1) as pool:
        return pool.apply(_peak_memory, (model, warm_up))


def _peak_memory(model: nn.Module, warm_up: nn.Module) -> Memory:
    torch.set_num_threads(1)
    # The memory of imports and caches does not belong to this model.
    _trace(warm_up).cost()
    gc.collect()
    before = _reset_peak()
    _trace(model).cost()
    after = _status('VmHWM')
    gc.collect()
    tracemalloc.start()
    _trace(model).cost()
    _, traced = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    tensors = [*model.parameters(), *model.buffers()]
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    return Memory(size, traced, None if before is None or after is None else after - before)


def _reset_peak() -> int | None:
    """Reset the system's peak of memory, and return the resident memory in bytes."""
    try:
        Path('/proc/self/clear_refs').write_text('5')
    except OSError:
        return None
    return _status('VmRSS')


def _status(name: str) -> int | None:
    file = Path('/proc/self/status')
    found = re.search(rf'^{name}:\s+(\d+) kB$', file.read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else None


# Part by part


def cost_of_new_masks(model: nn.Module) -> float:
    """Return the median seconds of ``graph.cost`` for masks that it has not seen before."""
    graph = _trace(model)
    graph.cost()
    generator = torch.Generator().manual_seed(0)
    seconds = []
    for _ in range(_NEW_MASKS):
        masks = {n: torch.rand(g.size, generator=generator) < 0.5 for n, g in graph.groups.items()}
        start = time.process_time()
        graph.cost(masks)
        seconds.append(time.process_time() - start)
    return statistics.median(seconds)


def phases(model: nn.Module) -> Phases:
    """Return the seconds of each part of a cut by half and of its cost.

    The seconds of a part do not include those of other parts that it calls.
    """
    spent: dict[str, float] = defaultdict(float)
    stack: list[str] = []
    last = [0.0]

    def switch() -> None:
        now = time.process_time()
        spent[stack[-1] if stack else 'the rest'] += now - last[0]
        last[0] = now

    def clocked(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            switch()
            stack.append(part)
            try:
                return function(*args, **kwargs)
            finally:
                switch()
                stack.pop()

        return run

    def work(model: nn.Module) -> None:
        last[0] = time.process_time()
        graph = easypruner.trace(model, example())
        masks = L1Norm(Ratio(keep=_KEEP, scope='layer')).select(graph, Context())
        graph.cost(masks)
        easypruner.prune(model, masks, graph=graph)
        switch()

    with contextlib.ExitStack() as hooks:
        for part, owner, name in _PARTS:
            hooked = clocked(part, getattr(owner, name))
            hooks.enter_context(mock.patch.object(owner, name, _as(owner, name, hooked)))
        total = clock(work, model)
    found: Phases = {part: spent[part] for part, _, _ in _PARTS}
    found['the rest'] = max(total - sum(found.values()), 0.0)
    found['all'] = total
    found['floor: a bare meta forward in an empty dispatch mode'] = _bare_forward(model)[1]
    return found


def _as(owner: Any, name: str, function: Callable[..., Any]) -> Any:
    """Return ``function`` in the form in which a class stores it, such as a static method."""
    stored = inspect.getattr_static(owner, name)
    return staticmethod(function) if isinstance(stored, classmethod) else function
