"""export(): writes a network for a runtime, and checks it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from easypruner.base.describe import describe
from easypruner.errors import ConfigError, nearest
from easypruner.graph.recording.tape import ExampleInputs
from easypruner.plugins.registry import RUNTIMES, build
from easypruner.plugins.use import ensure_loaded
from easypruner.runtimes import Runtime
from easypruner.runtimes.exporting import Export, export_network

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
    return export_network(
        network_of(model, 'export'),
        example_inputs,
        Path(folder),
        runtimes_of(runtime),
        unpruned=None if unpruned is None else network_of(unpruned, 'export'),
        overwrite=overwrite,
    )


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
    ensure_loaded()
    several = [given] if isinstance(given, str | Mapping | Runtime) else list(given)
    found = []
    for each in several:
        if isinstance(each, str) and each not in RUNTIMES.classes:
            raise ConfigError(f'there is no runtime {each!r}; {nearest(each, RUNTIMES.classes)}')
        config = {'type': each} if isinstance(each, str) else each
        runtime: Runtime = build(RUNTIMES, config, **defaults)
        runtime.check()
        found.append(runtime)
    if not found:
        raise ConfigError('got no runtime; expected the name of one, such as OnnxRuntime')
    return found
