"""export() and benchmark(): a network goes to a runtime, and is timed there."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from torch import nn

from easypruner.base.checks import check_count, check_name, check_number, refuse
from easypruner.base.describe import describe
from easypruner.errors import ConfigError
from easypruner.graph.recording.tape import ExampleInputs
from easypruner.plugins.targets import runtime_of
from easypruner.runtimes import Runtime
from easypruner.runtimes.benchmarking import Benchmark, benchmark_networks
from easypruner.runtimes.candidates import Candidate
from easypruner.runtimes.exporting import Export, export_network
from easypruner.runtimes.timing import Clock

RuntimeName = str | Mapping[str, Any] | Runtime
"""The name of a runtime, a dict with its arguments, or the runtime itself."""


def export(
    model: nn.Module,
    example_inputs: ExampleInputs,
    folder: str | os.PathLike[str],
    runtime: RuntimeName | Sequence[RuntimeName] = 'OnnxRuntime',
    *,
    unpruned: nn.Module | None = None,
    overwrite: bool = False,
) -> Export:
    """Write a network for a runtime, such as an ONNX file, and compare its outputs with torch's.

    Batch norms are folded, and the batch may have any size where the network allows it. The outputs
    are compared on the example inputs, on random ones and on another size of the batch: the
    largest difference may be 1e-4 of the largest value. Everything is written, or nothing.

    Args:
        model: the network, or what :func:`easypruner.slim` returned; it does not change.
        example_inputs: as for :func:`easypruner.trace`.
        folder: the folder to write. It gets a folder of each runtime, ``weights`` with safetensors
            and JSON, and ``export.json`` with all sizes and errors.
        runtime: the name of a runtime, a dict with its arguments, a runtime, or a list of these.
        unpruned: the network before the cuts, to be written beside it for comparison.
        overwrite: whether an earlier export in the folder may be replaced.

    Raises:
        ConfigError: there is no such runtime.
        EasyPrunerError: the runtime is not installed, it cannot express the network, its outputs
            differ from torch's, or the folder is in use.
    """
    if not isinstance(folder, str | os.PathLike) or '\0' in os.fspath(folder):
        raise ConfigError(f'folder of export is {describe(folder)}; expected the path of a folder')
    return export_network(
        network_of(model, 'export'),
        example_inputs,
        Path(folder),
        runtimes_of(runtime),
        unpruned=None if unpruned is None else network_of(unpruned, 'export'),
        overwrite=overwrite,
    )


def benchmark(
    models: nn.Module | Sequence[Any] | Mapping[str, Any],
    example_inputs: ExampleInputs,
    runtime: RuntimeName | Sequence[RuntimeName] = 'TorchEager',
    *,
    batches: Sequence[int] = (1,),
    threads: int = 1,
    repeats: int = 20,
    seconds: float | None = 2.0,
    memory: bool = True,
    clock: Clock = 'wall',
) -> Benchmark:
    """Time networks side by side, and compare them with the first. ``print()`` shows a table.

    In each round, each network runs once. The result has the median and spread of the time of a
    pass, samples per second, memory, size, and the share of the first network's time with its
    interval, or that noise explains the difference.

    Args:
        models: a network, or what :func:`easypruner.slim` returned; several of them, or name ->
            network. The first is the one that the others are compared with.
        example_inputs: as for :func:`easypruner.trace`, for all networks.
        runtime: the name of a runtime, a dict with its arguments, a runtime, or a list of these.
        batches: the numbers of samples of a pass.
        threads: the number of threads of a pass, for runtimes that are given by name or dict.
        repeats: the least number of rounds.
        seconds: the least time of the rounds of one runtime and batch; None for ``repeats`` rounds.
        memory: whether the memory is measured, for which each network is loaded again.
        clock: ``'wall'``, the time that passes, or ``'cpu'``, the time of this process on all its
            threads, which other processes delay less.

    Raises:
        ConfigError: there is no such runtime or clock, or a number is not a whole number of at
            least 1.
        EasyPrunerError: the runtime is not installed or has no CPU time, or nothing could be
            measured.
    """
    check_count(repeats, 'repeats', 'benchmark')
    check_name(clock, 'clock', 'benchmark', get_args(Clock))
    if seconds is not None:
        check_number(seconds, 'seconds', 'benchmark', least=0)
    if isinstance(batches, int) or not batches:
        refuse(batches, 'batches', 'benchmark', 'a list of whole numbers, such as [1, 8]')
    sizes = [check_count(size, 'batches', 'benchmark') for size in batches]
    named = _named(models)
    return benchmark_networks(
        [Candidate(name, network, example_inputs) for name, network in named.items()],
        runtimes_of(runtime, threads=threads),
        sizes,
        repeats=repeats,
        seconds=seconds,
        memory=memory,
        clock=clock,
    )


def _named(models: Any) -> dict[str, nn.Module]:
    """Return name -> network; without names, they are numbered after their classes."""
    several = models if isinstance(models, list | tuple | Mapping) else [models]
    if not several:
        raise ConfigError('models of benchmark is empty; expected a network, or several')
    if isinstance(models, Mapping):
        return {str(name): network_of(model, 'benchmark') for name, model in models.items()}
    networks = [network_of(model, 'benchmark') for model in several]
    return {f'{number} {type(each).__name__}': each for number, each in enumerate(networks)}


def network_of(model: Any, owner: str) -> nn.Module:
    """Return a network, or that of a result of :func:`easypruner.slim`.

    Raises:
        ConfigError: it is something else.
    """
    network = model if isinstance(model, nn.Module) else getattr(model, 'model', None)
    if not isinstance(network, nn.Module):
        raise ConfigError(
            f'model of {owner} is {describe(model)}; expected an nn.Module, or what slim returned'
        )
    return network


def runtimes_of(given: RuntimeName | Iterable[RuntimeName], **defaults: Any) -> list[Runtime]:
    """Return runtimes by their names, dicts, or as they are.

    Args:
        given: one of them, or several.
        **defaults: arguments of those that are not built yet.

    Raises:
        ConfigError: there is no such runtime, or it has other arguments.
        EasyPrunerError: it is not installed.
    """
    several = [given] if isinstance(given, str | Mapping | Runtime) else given
    if isinstance(several, type) or not isinstance(several, Iterable):
        raise ConfigError(
            f'runtime is {describe(given)}; expected the name of a runtime, a dict with its '
            'arguments, a runtime, or a list of these'
        )
    found = []
    for each in several:
        runtime = runtime_of(each, **defaults)
        runtime.check()
        found.append(runtime)
    if not found:
        raise ConfigError('got no runtime; expected the name of one, such as OnnxRuntime')
    return found
