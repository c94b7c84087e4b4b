"""Handlers of layers: finding the one for a layer, and letting them set the layers' numbers."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from easypruner.errors import EasyPrunerError, PluginError
from easypruner.graph.cutting.layer_handler import LayerHandler, fault_of_handles
from easypruner.graph.cutting.torch_layers import TORCH_HANDLERS
from easypruner.graph.recording.parametrized import with_computed


def with_torch_layers(handlers: Sequence[LayerHandler]) -> tuple[LayerHandler, ...]:
    """Return ``handlers``, and behind them those for torch's own layers.

    Raises:
        PluginError: one of ``handlers`` does not say what it handles.
    """
    for handler in handlers:
        fault = fault_of_handles(handler)
        if fault:
            raise PluginError(f'layer handler {type(handler).__name__!r} {fault}')
    return (*handlers, *TORCH_HANDLERS)


def find_handler(layer: nn.Module, handlers: Sequence[LayerHandler]) -> LayerHandler | None:
    """Return the first handler for the type of ``layer``, or for a type it descends from."""
    names = {f'{base.__module__}.{base.__qualname__}' for base in type(layer).__mro__}
    for handler in handlers:
        for handled in handler.handles:
            if isinstance(handled, str):
                if handled in names or isinstance(layer, _imported(handled)):
                    return handler
            elif isinstance(layer, handled):
                return handler
    return None


def _imported(name: str) -> type | tuple[()]:
    """Return the type that a full name leads to where its module is imported; else no type.

    Libraries show a type under another name than that of the module which defines it.
    """
    module, _, local = name.rpartition('.')
    found = getattr(sys.modules.get(module), '__dict__', {}).get(local)
    return found if isinstance(found, type) else ()


def resize_layers(
    modules: Mapping[str, nn.Module],
    shapes: Mapping[str, Mapping[str, torch.Size]],
    handlers: Sequence[LayerHandler],
) -> None:
    """Let the handlers set the numbers of every layer whose tensors change shape.

    Args:
        modules: dotted path -> module, their tensors still in their old shapes.
        shapes: path of a module -> local name of a tensor -> its new shape.
        handlers: in order of precedence.

    Raises:
        PluginError: a handler fails; the message names it.
    """
    for path, own in with_computed(modules, shapes).items():
        layer = modules[path]
        handler = find_handler(layer, handlers)
        if handler is None:
            continue
        try:
            handler.resize(layer, own)
        except EasyPrunerError:
            raise
        except Exception as error:
            at = traceback.extract_tb(error.__traceback__)[-1]
            raise PluginError(
                f'the layer handler {type(handler).__name__} fails on {path!r}, a '
                f'{type(layer).__name__}: {type(error).__name__}: {error} '
                f'({Path(at.filename).name}:{at.lineno})'
            ) from error
