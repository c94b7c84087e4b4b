"""Sections of benchmarks/gpu.py: training steps, what a push adds to them, and a Train stage."""

from __future__ import annotations

import copy
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from gpu_bench import (
    UNPRUNED,
    Bench,
    Job,
    alternating,
    half,
    peak_memory,
    ratio,
    spread,
    weight_memory,
)
from torch import Tensor, nn
from torch.nn import functional

import easypruner

PUSHES: dict[str, dict[str, Any]] = {
    'MaskSparsity': dict(type='MaskSparsity', strength=1e-4),
    'MaskSparsity, proximal': dict(type='MaskSparsity', strength=1e-4, apply='proximal'),
    'GlobalSparsity': dict(type='GlobalSparsity', strength=1e-4),
    'GroupLasso, masked': dict(type='GroupLasso', strength=1e-4, masked=True),
    'GReg': dict(type='GReg', strength=1e-4),
    'ActivationSparsity': dict(type='ActivationSparsity', strength=1e-4),
}
_UPDATES = 100_000
"""The announced length of a training; the strengths do not depend on it."""


@dataclass
class Training:
    """Training steps under fp16 AMP, with a GradScaler and fused SGD.

    Attributes:
        bench: the device and the sizes.
        model: the network, in training mode and channels_last.
    """

    bench: Bench
    model: nn.Module

    def __post_init__(self) -> None:
        images = self.bench.images(self.bench.size.training_batch)
        self._images = images.contiguous(memory_format=torch.channels_last)
        self._labels = torch.arange(len(images), device=images.device) % 10
        self._scaler = torch.amp.GradScaler(self.bench.device.type, init_scale=1024.0)

    def optimizer(self) -> torch.optim.Optimizer:
        """Return an optimizer of the network."""
        return torch.optim.SGD(self.model.parameters(), 1e-6, momentum=0.9, fused=True)

    def step(
        self, optimizer: torch.optim.Optimizer, joined: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        """Make a training step.

        Args:
            optimizer: which makes it.
            joined: adds a penalty on the forward pass to the loss.
        """
        with torch.autocast(self.bench.device.type, torch.float16):
            loss = functional.cross_entropy(self.model(self._images), self._labels)
        loss = loss if joined is None else joined(loss)
        optimizer.zero_grad()
        self._scaler.scale(loss).backward()
        self._scaler.step(optimizer)
        self._scaler.update()


def step_jobs(bench: Bench) -> Iterator[Job]:
    """Yield the job that compares training steps and their memory, unpruned and pruned."""
    name = bench.size.trained
    yield Job(f'{name}, {bench.size.training_batch}', partial(_steps, bench, name), 25)


def _steps(bench: Bench, name: str) -> dict[str, Any]:
    models = {UNPRUNED: bench.model(name)}
    models |= {str(grid): bench.cut(name, grid).model for grid in bench.size.grids[:2]}
    models = {label: _trainable(model) for label, model in models.items()}
    calls = {label: _step_of(bench, model) for label, model in models.items()}
    found = alternating(calls, bench)
    return {
        label: {
            'step': spread(seconds),
            'ratio': ratio(seconds, found[UNPRUNED]),
            'activations_and_gradients_mib': peak_memory(calls[label], bench),
            'weights_mib': weight_memory(models[label]),
        }
        for label, seconds in found.items()
    }


def _step_of(bench: Bench, model: nn.Module) -> Callable[[], None]:
    training = Training(bench, model)
    return partial(training.step, training.optimizer())


def _trainable(model: nn.Module) -> nn.Module:
    own = copy.deepcopy(model).requires_grad_().train()
    return own.to(memory_format=torch.channels_last)


def push_jobs(bench: Bench) -> Iterator[Job]:
    """Yield the jobs that compare training steps with and without a push."""
    for label, config in PUSHES.items():
        yield Job(f'{bench.size.trained}, {label}', partial(_push, bench, config), 8)


def _push(bench: Bench, config: dict[str, Any]) -> dict[str, Any]:
    """Return the time of a step, and of one that pushes, in turns."""
    plain = _trainable(bench.model(bench.size.trained))
    model = _trainable(plain)
    graph = bench.graph(bench.model(bench.size.trained))
    training = Training(bench, model)
    optimizer = training.optimizer()
    with warnings.catch_warnings():
        # The strength is not meant to bring anything to zero.
        warnings.simplefilter('ignore', easypruner.PushWarning)
        pusher = easypruner.regularize(
            model, optimizer, graph, config, masks=half(graph), updates=_UPDATES
        )
        calls = {
            'plain': _step_of(bench, plain),
            'pushed': partial(training.step, optimizer, pusher.loss),
        }
        found = alternating(calls, bench)
        pusher.close()
    return {
        'plain': spread(found['plain']),
        'pushed': spread(found['pushed']),
        'ratio': ratio(found['pushed'], found['plain']),
    }


def stage_jobs(bench: Bench) -> Iterator[Job]:
    """Yield the job that compares a Train stage with a bare Runner of MMEngine."""
    epochs = bench.size.stage_epochs
    yield Job(f'Train, {epochs} epochs', partial(_stage, bench, epochs), 60)


def _stage(bench: Bench, epochs: int) -> dict[str, Any]:
    """Return the wall time of both, on the device that the Runner chooses: a GPU if there is one.

    A first run of each reads data and fills caches.
    """
    # MMEngine and mmpretrain are only needed here.
    from stage_overhead import CONFIG, make_bench

    trainings = make_bench(epochs)
    both = {'stage': trainings.stage, 'bare': trainings.bare}
    found: dict[str, list[float]] = {name: [] for name in both}
    for number in range(bench.size.stage_pairs + 1):
        for name in both if number % 2 else reversed(both):
            found[name].append(_wall_seconds(both[name], bench))
    stage, bare = found['stage'][1:], found['bare'][1:]
    return {
        'config': CONFIG.name,
        'epochs': epochs,
        'stage': spread(stage),
        'bare': spread(bare),
        'ratio': ratio(stage, bare),
    }


def _wall_seconds(train: Callable[[Path], None], bench: Bench) -> float:
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        train(Path(folder) / 'run')
        bench.wait()
        return time.perf_counter() - start
