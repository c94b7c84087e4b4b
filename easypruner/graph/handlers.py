"""Handlers of layers: finding them, letting them work, and those for torch's own layers."""

from __future__ import annotations

import importlib.util
import pkgutil
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from easypruner.contracts import LayerHandler
from easypruner.errors import EasyPrunerError, PluginError
from easypruner.graph.parametrized import with_computed

Shapes = Mapping[str, torch.Size]


class ConvolutionHandler(LayerHandler):
    """Convolutions, plain and transposed: channels and groups."""

    handles = (_ConvNd,)

    def resize(self, layer: nn.Module, shapes: Shapes) -> None:
        assert isinstance(layer, _ConvNd)
        if 'weight' not in shapes:
            return
        # The number of groups is known by now: the shapes alone do not tell it.
        new = shapes['weight']
        whole, part = new[0], new[1] * layer.groups
        transposed = isinstance(layer, _ConvTransposeNd)
        layer.in_channels, layer.out_channels = (whole, part) if transposed else (part, whole)


class LinearHandler(LayerHandler):
    """Linear layers: features in and out."""

    handles = (nn.Linear,)

    def resize(self, layer: nn.Module, shapes: Shapes) -> None:
        assert isinstance(layer, nn.Linear)
        if 'weight' in shapes:
            layer.out_features, layer.in_features = shapes['weight']


class BatchNormHandler(LayerHandler):
    """Batch and instance norms: the number of features."""

    handles = (_NormBase,)

    def resize(self, layer: nn.Module, shapes: Shapes) -> None:
        assert isinstance(layer, _NormBase)
        for name in ('weight', 'running_mean'):
            if name in shapes:
                layer.num_features = shapes[name][0]


class LayerNormHandler(LayerHandler):
    """Layer and RMS norms: the normalized shape."""

    handles = (nn.LayerNorm, nn.RMSNorm)

    def resize(self, layer: nn.Module, shapes: Shapes) -> None:
        assert isinstance(layer, (nn.LayerNorm, nn.RMSNorm))
        if 'weight' in shapes:
            layer.normalized_shape = tuple(shapes['weight'])


class GroupNormHandler(LayerHandler):
    """Group norms: the number of channels; the number of groups stays."""

    handles = (nn.GroupNorm,)

    def resize(self, layer: nn.Module, shapes: Shapes) -> None:
        assert isinstance(layer, nn.GroupNorm)
        if 'weight' in shapes:
            layer.num_channels = shapes['weight'][0]


class PReLUHandler(LayerHandler):
    """PReLU: the number of slopes."""

    handles = (nn.PReLU,)

    def resize(self, layer: nn.Module, shapes: Shapes) -> None:
        assert isinstance(layer, nn.PReLU)
        if 'weight' in shapes:
            layer.num_parameters = shapes['weight'][0]


class EmbeddingHandler(LayerHandler):
    """Embeddings: their number and width."""

    handles = (nn.Embedding, nn.EmbeddingBag)

    def resize(self, layer: nn.Module, shapes: Shapes) -> None:
        assert isinstance(layer, (nn.Embedding, nn.EmbeddingBag))
        if 'weight' in shapes:
            layer.num_embeddings, layer.embedding_dim = shapes['weight']


class RecurrentHandler(LayerHandler):
    """RNN, LSTM and GRU: features in, hidden units, and the width of a projection."""

    handles = (nn.RNNBase,)

    def resize(self, layer: nn.Module, shapes: Shapes) -> None:
        assert isinstance(layer, nn.RNNBase)
        if 'weight_ih_l0' in shapes:
            rows, layer.input_size = shapes['weight_ih_l0']
            weight = layer.weight_ih_l0
            assert isinstance(weight, Tensor)
            layer.hidden_size = rows * layer.hidden_size // weight.shape[0]
        if 'weight_hr_l0' in shapes:
            layer.proj_size = shapes['weight_hr_l0'][0]


class RecurrentCellHandler(LayerHandler):
    """Cells of RNN, LSTM and GRU: features in and hidden units."""

    handles = (nn.RNNCellBase,)

    def resize(self, layer: nn.Module, shapes: Shapes) -> None:
        assert isinstance(layer, nn.RNNCellBase)
        if 'weight_ih' in shapes:
            layer.input_size = shapes['weight_ih'][1]
        if 'weight_hh' in shapes:
            layer.hidden_size = shapes['weight_hh'][1]


class AttentionHandler(LayerHandler):
    """Multi-head attention: the widths of queries, keys, values and heads; their number stays."""

    handles = (nn.MultiheadAttention,)

    def resize(self, layer: nn.Module, shapes: Shapes) -> None:
        assert isinstance(layer, nn.MultiheadAttention)
        if 'in_proj_weight' in shapes:
            layer.embed_dim = layer.kdim = layer.vdim = shapes['in_proj_weight'][1]
        for weight, name in (('q_proj_weight', 'embed_dim'), ('k_proj_weight', 'kdim'),
                             ('v_proj_weight', 'vdim')):  # fmt: skip
            if weight in shapes:
                setattr(layer, name, shapes[weight][1])
        layer.head_dim = layer.embed_dim // layer.num_heads


class BilinearHandler(LayerHandler):
    """Bilinear layers: features of both inputs and out."""

    handles = (nn.Bilinear,)

    def resize(self, layer: nn.Module, shapes: Shapes) -> None:
        assert isinstance(layer, nn.Bilinear)
        if 'weight' in shapes:
            layer.out_features, layer.in1_features, layer.in2_features = shapes['weight']


TORCH_HANDLERS: tuple[LayerHandler, ...] = (
    ConvolutionHandler(),
    LinearHandler(),
    BatchNormHandler(),
    LayerNormHandler(),
    GroupNormHandler(),
    PReLUHandler(),
    EmbeddingHandler(),
    RecurrentHandler(),
    RecurrentCellHandler(),
    AttentionHandler(),
    BilinearHandler(),
)

_BUILT_INS = 'easypruner_plugins'
_SUFFIX = '_layers'
_loaded: list[tuple[LayerHandler, ...]] = []


def use_handlers(handlers: Iterable[LayerHandler]) -> None:
    """Let ``handlers``, those of all loaded plugins, stand before torch's own from now on."""
    _loaded[:] = [tuple(handlers)]


def known_handlers(handlers: Sequence[LayerHandler] = ()) -> tuple[LayerHandler, ...]:
    """Return all handlers in order of precedence: ``handlers``, the plugins', torch's own.

    As long as no plugins were loaded, the plugins' are those of the built-in files that are named
    ``*_layers.py``. None of them imports the library whose layers it knows.

    Raises:
        PluginError: one of ``handlers`` does not say what it handles.
    """
    for handler in handlers:
        fault = fault_of_handles(handler)
        if fault:
            raise PluginError(f'layer handler {type(handler).__name__!r} {fault}')
    return (*handlers, *(_loaded[0] if _loaded else _built_in()), *TORCH_HANDLERS)


@cache
def _built_in() -> tuple[LayerHandler, ...]:
    package = importlib.util.find_spec(_BUILT_INS)
    if package is None:
        return ()
    names = [module.name for module in pkgutil.iter_modules(package.submodule_search_locations)]
    return tuple(
        component()
        for name in sorted(names)
        if name.endswith(_SUFFIX)
        for component in import_module(f'{_BUILT_INS}.{name}').easypruner_components()
        if issubclass(component, LayerHandler)
    )


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


def fault_of_handles(handler: LayerHandler) -> str:
    """Return what is wrong with ``handles`` of a handler, as in 'handles 3; expected ...'; or ''.

    >>> class Own(PReLUHandler):
    ...     handles = ('PReLU',)
    >>> fault_of_handles(Own())
    "handles 'PReLU', which is no full name; expected one such as 'package.module.PReLU'"
    """
    handles = handler.handles
    if not isinstance(handles, tuple | list | set | frozenset) or not handles:
        shown = handles.__qualname__ if isinstance(handles, type) else repr(handles)
        advice = f', as in handles = ({shown},)' if isinstance(handles, type) else ''
        return f'handles {shown}; expected a tuple of module types or of their full names{advice}'
    for handled in handles:
        if isinstance(handled, str):
            if '.' not in handled:
                return (
                    f'handles {handled!r}, which is no full name; expected one such as '
                    f"'package.module.{handled}'"
                )
        elif not isinstance(handled, type):
            return f'handles {handled!r}; expected a type of modules or its full name'
    return ''


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
