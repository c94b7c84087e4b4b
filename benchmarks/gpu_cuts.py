"""Section of benchmarks/gpu.py: networks on the GPU are traced, cut, verified and loaded there."""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from gpu_bench import Bench, Job, UnavailableError, half
from safetensors.torch import save_file
from torch import nn

import easypruner
from easypruner.errors import EasyPrunerError


def jobs(bench: Bench) -> Iterator[Job]:
    """Yield a job for each network and grid."""
    for grid in bench.size.grids:
        for name in bench.size.networks:
            yield Job(f'{name}, {grid}', partial(_cut, bench, name, grid), 10)


def _cut(bench: Bench, name: str, grid: int) -> dict[str, Any]:
    """Cut a network with its optimizer, and return the costs, the times and the checks."""
    model = copy.deepcopy(bench.model(name)).requires_grad_()
    images = bench.images(2)
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9)
    _update(model, optimizer, bench)
    model.eval()
    start = time.perf_counter()
    graph = bench.graph(model, grid)
    traced = time.perf_counter() - start
    try:
        masks = half(graph)
    except EasyPrunerError as error:
        raise UnavailableError(str(error)) from error
    before, after = graph.cost(), graph.cost(masks)
    error = easypruner.verify(model, masks, images, graph=graph).error
    start = time.perf_counter()
    record = easypruner.prune(model, masks, graph=graph, optimizer=optimizer)
    bench.wait()
    cut = time.perf_counter() - start
    _check_device(model, optimizer, bench)
    again = _loaded(bench, name, model, record)
    with torch.no_grad():
        works = bool(torch.isfinite(again(images)).all())
    pairs = zip(again.state_dict().values(), model.state_dict().values(), strict=True)
    loads = works and all(torch.equal(one, other) for one, other in pairs)
    loss = _update(model, optimizer, bench)
    return {
        'macs_left': after.macs / before.macs,
        'params_left': after.params / before.params,
        'error': float(error),
        'trace_seconds': traced,
        'cut_seconds': cut,
        'loads': loads,
        'trains_on': bool(torch.isfinite(loss)),
    }


def _update(model: nn.Module, optimizer: torch.optim.Optimizer, bench: Bench) -> torch.Tensor:
    """Make an update, so that the optimizer has a state; return the loss."""
    model.train()
    loss = model(bench.images(2)).float().square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


def _check_device(model: nn.Module, optimizer: torch.optim.Optimizer, bench: Bench) -> None:
    """Raise AssertionError if the network or the optimizer's state has left the device."""
    states = [tensor for state in optimizer.state.values() for tensor in state.values()]
    tensors = [*model.parameters(), *model.buffers()]
    for tensor in tensors + [state for state in states if isinstance(state, torch.Tensor)]:
        assert tensor.device.type == bench.device.type, f'a tensor is on {tensor.device}'
    for parameter in model.parameters():
        momentum = optimizer.state[parameter]['momentum_buffer']
        assert momentum.shape == parameter.shape, 'the optimizer was not cut'


def _loaded(
    bench: Bench, name: str, model: nn.Module, record: easypruner.graph.ArchitectureRecord
) -> nn.Module:
    """Return the pruned network, loaded from files and moved to the device."""
    with tempfile.TemporaryDirectory() as folder:
        weights, architecture = Path(folder) / 'w.safetensors', Path(folder) / 'architecture.json'
        save_file({key: t.contiguous() for key, t in model.state_dict().items()}, weights)
        record.save(architecture)
        original = copy.deepcopy(bench.model(name))
        loaded = easypruner.load_pruned(lambda: original, weights, architecture)
    return loaded.to(bench.device).eval()
