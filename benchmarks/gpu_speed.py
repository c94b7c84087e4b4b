"""Sections of benchmarks/gpu.py: latency, throughput and memory, unpruned and pruned on grids.

The networks of a job take turns. The ratios are those of windows that follow each other.
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from typing import Any

import torch
from gpu_bench import (
    UNPRUNED,
    Bench,
    Job,
    UnavailableError,
    alternating,
    attempt,
    peak_memory,
    ratio,
    spread,
    weight_memory,
)
from torch import Tensor, nn

DTYPES = {'fp16': torch.float16, 'bf16': torch.bfloat16}
"""Precision -> the type of weights and images."""

Pass = Callable[[], object]
Runtime = Callable[[Bench, nn.Module, Tensor], Pass]
"""Makes a function that runs a network on images once."""


def eager_jobs(bench: Bench) -> Iterator[Job]:
    """Yield the jobs of torch's own kernels in the memory format channels_last."""
    return _all_grids(bench, eager, 12)


def graph_jobs(bench: Bench) -> Iterator[Job]:
    """Yield the jobs of CUDA graphs: the same kernels without the time to start each of them."""
    return _all_grids(bench, graphed, 12)


def compiled_jobs(bench: Bench) -> Iterator[Job]:
    """Yield the jobs of torch.compile."""
    return _single_grids(bench, compiled, 60)


def tensorrt_jobs(bench: Bench) -> Iterator[Job]:
    """Yield the jobs of TensorRT, by Torch-TensorRT."""
    return _single_grids(bench, tensorrt, 90)


def _all_grids(bench: Bench, runtime: Runtime, seconds: float) -> Iterator[Job]:
    """Yield jobs that measure all grids together."""
    for batch, name, precision in product(bench.size.batches, bench.size.networks, DTYPES):
        measure = partial(_measure, bench, runtime, name, precision, batch, bench.size.grids)
        yield Job(f'{name}, {precision}, {batch}', measure, seconds)


def _single_grids(bench: Bench, runtime: Runtime, seconds: float) -> Iterator[Job]:
    """Yield jobs that measure one grid beside the unpruned network, as building takes long."""
    size = bench.size
    for precision, batch, grid, name in product(DTYPES, size.batches, size.grids, size.networks):
        measure = partial(_measure, bench, runtime, name, precision, batch, (grid,))
        yield Job(f'{name}, {precision}, {batch}, {grid}', measure, seconds)


def _measure(
    bench: Bench, runtime: Runtime, name: str, precision: str, batch: int, grids: Sequence[int]
) -> dict[str, Any]:
    """Return time, images per second, memory and the ratio to unpruned, for each network."""
    dtype = DTYPES[precision]
    images = bench.images(batch).to(dtype).contiguous(memory_format=torch.channels_last)
    cuts = {str(grid): attempt(lambda grid=grid: {'cut': bench.cut(name, grid)}) for grid in grids}
    missing = {label: found for label, found in cuts.items() if 'cut' not in found}
    if len(missing) == len(cuts):
        raise UnavailableError('; '.join(str(*found.values()) for found in missing.values()))
    models = {UNPRUNED: bench.model(name)}
    models |= {label: found['cut'].model for label, found in cuts.items() if 'cut' in found}
    models = {label: _prepared(model, dtype) for label, model in models.items()}
    passes = {label: runtime(bench, models[label], images) for label in cuts if label in models}
    # Building may take long, and the jobs of other grids need the same pass.
    build = partial(runtime, bench, models[UNPRUNED], images)
    passes = {UNPRUNED: bench.once((runtime, name, precision, batch), build), **passes}
    # The memory of a CUDA graph is its own and stays allocated.
    measured = {} if runtime is graphed else passes
    memory = {label: peak_memory(call, bench) for label, call in measured.items()}
    found = alternating(passes, bench)
    results: dict[str, Any] = dict(missing)
    for label, seconds in found.items():
        results[label] = {
            'pass': spread(seconds),
            'images_per_second': batch / spread(seconds)['median'],
            'ratio': ratio(seconds, found[UNPRUNED]),
            'activations_mib': memory.get(label),
            'weights_mib': weight_memory(models[label]),
        }
    return {'network': name, 'precision': precision, 'batch': batch, 'widths': results}


def _prepared(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Return a copy of a network in a precision and in channels_last."""
    own = copy.deepcopy(model).requires_grad_(False)
    return own.to(dtype).to(memory_format=torch.channels_last).eval()


def eager(bench: Bench, model: nn.Module, images: Tensor) -> Pass:
    """Return a pass of the network as it is."""

    @torch.inference_mode()
    def run() -> object:
        return model(images)

    return run


def compiled(bench: Bench, model: nn.Module, images: Tensor) -> Pass:
    """Return a pass of the network, compiled for the shape of the images."""
    # The limit counts all networks that share a forward function.
    for limit in ('cache_size_limit', 'recompile_limit'):
        if hasattr(torch._dynamo.config, limit):
            setattr(torch._dynamo.config, limit, 1000)
    return eager(bench, torch.compile(model, backend=bench.size.compiler, dynamic=False), images)


def graphed(bench: Bench, model: nn.Module, images: Tensor) -> Pass:
    """Return a replay of a CUDA graph of the network."""
    if not bench.is_cuda:
        raise UnavailableError(
            f'CUDA graphs need a GPU of NVIDIA, but the device is {bench.device}'
        )
    run = eager(bench, model, images)
    stream = torch.cuda.Stream(bench.device)
    stream.wait_stream(torch.cuda.current_stream(bench.device))
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream(bench.device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        # The outputs live as long as the graph writes them.
        outputs = run()
    return lambda: (graph.replay(), outputs)


def tensorrt(bench: Bench, model: nn.Module, images: Tensor) -> Pass:
    """Return a pass of an engine of TensorRT. It has not been tried on a GPU."""
    if importlib.util.find_spec('torch_tensorrt') is None:
        raise UnavailableError('Torch-TensorRT is not installed; run: pip install torch-tensorrt')
    import torch_tensorrt

    engine = torch_tensorrt.compile(
        model, ir='dynamo', inputs=[images], enabled_precisions={images.dtype}
    )
    return eager(bench, engine, images)
