"""Layer handlers: find the one for a layer, and let it set the layer's numbers."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import nn

from easypruner.errors import EasyPrunerError, PluginError
from easypruner.graph.cutting.layer_handler import LayerHandler, fault_of_handles
from easypruner.graph.cutting.torch_layers import TORCH_HANDLERS
from easypruner.graph.recording.parametrized import LayerShapes, with_computed


def with_torch_layers(handlers: Sequence[LayerHandler]) -> tuple[LayerHandler, ...]:
    """Return ``handlers`` followed by those for torch's own layers.

    Raises:
        PluginError: ``handles`` of a handler is not valid.
    """
    for handler in handlers:
        fault = fault_of_handles(handler)
        if fault:
            raise PluginError(f'layer handler {type(handler).__name__!r} {fault}')
    return (*handlers, *TORCH_HANDLERS)


def find_handler(layer: nn.Module, handlers: Sequence[LayerHandler]) -> LayerHandler | None:
    """Return the first handler for the type of a layer or for a base class of it."""
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
    """Return the type with a full name if its module is imported; else no type.

    A library may export a type under another name than that of the module that defines it.
    """
    module, _, local = name.rpartition('.')
    found = getattr(sys.modules.get(module), '__dict__', {}).get(local)
    return found if isinstance(found, type) else ()


def resize_layers(
    modules: Mapping[str, nn.Module],
    shapes: LayerShapes,
    handlers: Sequence[LayerHandler],
) -> None:
    """Let the handlers set the numbers of every layer whose tensors change shape.

    Args:
        modules: dotted path -> module, whose tensors still have their old shapes.
        shapes: path of a module -> local name of a tensor -> its new shape.
        handlers: the handlers in order of precedence.

    Raises:
        PluginError: a handler fails; the message names it.
    """
    by_type: dict[type[nn.Module], LayerHandler | None] = {}
    for path, own in with_computed(modules, shapes).items():
        layer = modules[path]
        if type(layer) not in by_type:
            by_type[type(layer)] = find_handler(layer, handlers)
        handler = by_type[type(layer)]
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
