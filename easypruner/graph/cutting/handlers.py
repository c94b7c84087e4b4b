"""Layer handlers: they set a layer's own numbers, such as ``out_channels``, after a cut."""

from __future__ import annotations

import traceback
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from easypruner.base.component import Component
from easypruner.errors import EasyPrunerError, PluginError
from easypruner.graph.cutting.handles import fault_of_handles, find_handler
from easypruner.graph.recording.parametrized import LayerShapes, with_computed

Shapes = Mapping[str, torch.Size]
"""Local name of a layer's tensor -> its new shape."""


class LayerHandler(Component):
    """Sets a module's own numbers after a cut (out_channels, groups, num_heads, ...).

    A handler is created without arguments. Each module has one handler, the first that fits: those
    given to :func:`easypruner.trace` come first, then those of plugins, then those for torch's own
    layers.

    Attributes:
        handles: types of modules, or their full names, such as ``'timm.layers.norm.LayerNorm2d'``.
            A name needs no import. Subclasses are handled as well.
        inner: whether ``shapes`` has the tensors of the layer's parts as well, under their dotted
            names, such as ``'conv.weight'``. A method that a forward pass does not run, such as one
            for export, may read a width that only the parts show.
    """

    handles: ClassVar[tuple[type[nn.Module] | str, ...]] = ()
    inner: ClassVar[bool] = False

    @abstractmethod
    def resize(self, layer: nn.Module, shapes: Shapes) -> None:
        """Set the numbers of a layer for the new shapes of its tensors.

        The parameters still have their old shapes when this is called.

        Args:
            layer: the module, an instance of one of :attr:`handles`.
            shapes: local name -> new shape, for each of the layer's own parameters and buffers
                whose shape changes, and for each weight that is computed from such tensors; with
                :attr:`inner` for those of its parts too.
        """

    def counted(self, output: Any) -> Any:
        """Return the tensors that count of what a network returns, if it is of a handled type.

        The others, such as features beside the boxes of a detector, may lose channels. By default
        all count.

        Args:
            output: what the network's forward returned.
        """
        return output


class SizesHandler(LayerHandler):
    """Sets numbers that are sizes of a layer's tensors.

    Attributes:
        sizes: local name of a tensor -> the attribute that holds the size of each dimension; None
            for a dimension without an attribute.
    """

    sizes: ClassVar[Mapping[str, tuple[str | None, ...]]]

    def resize(self, layer: nn.Module, shapes: Shapes) -> None:
        for name, attributes in self.sizes.items():
            for attribute, size in zip(attributes, shapes.get(name, ()), strict=False):
                if attribute is not None:
                    setattr(layer, attribute, size)


class ConvolutionHandler(LayerHandler):
    """Convolutions and transposed convolutions: the numbers of channels."""

    handles = (_ConvNd,)

    def resize(self, layer: Any, shapes: Shapes) -> None:
        if 'weight' not in shapes:
            return
        # The shapes do not tell the number of groups. It was set before this call.
        new = shapes['weight']
        whole, part = new[0], new[1] * layer.groups
        transposed = isinstance(layer, _ConvTransposeNd)
        layer.in_channels, layer.out_channels = (whole, part) if transposed else (part, whole)


class LayerNormHandler(LayerHandler):
    """Layer and RMS norms: the normalized shape."""

    handles = (nn.LayerNorm, nn.RMSNorm)

    def resize(self, layer: Any, shapes: Shapes) -> None:
        if 'weight' in shapes:
            layer.normalized_shape = tuple(shapes['weight'])


class PReLUHandler(SizesHandler):
    """PReLU: the number of slopes."""

    handles = (nn.PReLU,)
    sizes: ClassVar = {'weight': ('num_parameters',)}


class RecurrentHandler(LayerHandler):
    """RNN, LSTM and GRU: the input features, the hidden units, and the width of a projection."""

    handles = (nn.RNNBase,)

    def resize(self, layer: Any, shapes: Shapes) -> None:
        if 'weight_ih_l0' in shapes:
            rows, layer.input_size = shapes['weight_ih_l0']
            layer.hidden_size = rows * layer.hidden_size // layer.weight_ih_l0.shape[0]
        if 'weight_hr_l0' in shapes:
            layer.proj_size = shapes['weight_hr_l0'][0]


class AttentionHandler(SizesHandler):
    """Multi-head attention: the widths of queries, keys, values and heads. Their number stays."""

    handles = (nn.MultiheadAttention,)
    sizes: ClassVar = {
        'q_proj_weight': (None, 'embed_dim'),
        'k_proj_weight': (None, 'kdim'),
        'v_proj_weight': (None, 'vdim'),
    }

    def resize(self, layer: Any, shapes: Shapes) -> None:
        super().resize(layer, shapes)
        if 'in_proj_weight' in shapes:
            layer.embed_dim = layer.kdim = layer.vdim = shapes['in_proj_weight'][1]
        layer.head_dim = layer.embed_dim // layer.num_heads


def _sizes_handler(*handles: type[nn.Module], **sizes: tuple[str | None, ...]) -> LayerHandler:
    """Return a SizesHandler for types of layers."""
    return type('SizesHandler', (SizesHandler,), {'handles': handles, 'sizes': sizes})()


TORCH_HANDLERS: tuple[LayerHandler, ...] = (
    ConvolutionHandler(),
    LayerNormHandler(),
    PReLUHandler(),
    RecurrentHandler(),
    AttentionHandler(),
    _sizes_handler(nn.Linear, weight=('out_features', 'in_features')),
    _sizes_handler(_NormBase, weight=('num_features',), running_mean=('num_features',)),
    _sizes_handler(nn.GroupNorm, weight=('num_channels',)),
    _sizes_handler(nn.Embedding, nn.EmbeddingBag, weight=('num_embeddings', 'embedding_dim')),
    _sizes_handler(nn.RNNCellBase, weight_ih=(None, 'input_size'), weight_hh=(None, 'hidden_size')),
    _sizes_handler(nn.Bilinear, weight=('out_features', 'in1_features', 'in2_features')),
)


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


def counted_by(model: nn.Module, handlers: Sequence[LayerHandler]) -> Callable[[Any], Any] | None:
    """Return what chooses the outputs of a network that count; None if all of them do."""
    handler = find_handler(model, handlers)
    chooses = handler is not None and type(handler).counted is not LayerHandler.counted
    return handler.counted if handler is not None and chooses else None


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
    found = _HandlerOf(handlers)
    changed = with_computed(modules, shapes)
    if any(handler.inner for handler in handlers):
        changed = _with_inner(modules, changed, found)
    for path, own in changed.items():
        layer = modules[path]
        handler = found(layer)
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


class _HandlerOf:
    """Finds the handler of a module, once for each type."""

    def __init__(self, handlers: Sequence[LayerHandler]) -> None:
        self._handlers = handlers
        self._by_type: dict[type[nn.Module], LayerHandler | None] = {}

    def __call__(self, layer: nn.Module) -> LayerHandler | None:
        cls = type(layer)
        if cls not in self._by_type:
            self._by_type[cls] = find_handler(layer, self._handlers)
        return self._by_type[cls]


def _with_inner(
    modules: Mapping[str, nn.Module], shapes: LayerShapes, handler_of: _HandlerOf
) -> dict[str, dict[str, torch.Size]]:
    """Return shapes with those of parts for each module whose handler asks for them, inside out."""
    result = {path: dict(own) for path, own in shapes.items()}
    for path, own in shapes.items():
        around, part = path, ''
        while around:
            around, _, name = around.rpartition('.')
            part = f'{name}.{part}' if part else name
            handler = handler_of(modules[around])
            if handler is not None and handler.inner:
                found = result.setdefault(around, {})
                found.update({f'{part}.{local}': shape for local, shape in own.items()})
    return dict(sorted(result.items(), key=lambda item: (not item[0], -item[0].count('.'))))
