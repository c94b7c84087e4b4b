"""Layer handlers: they set a layer's own numbers, such as ``out_channels``, after a cut."""

from __future__ import annotations

import functools
import sys
import traceback
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from easypruner.base.component import Component
from easypruner.errors import EasyPrunerError, PluginError
from easypruner.graph.cutting.handles import HandlerTable, fault_of_handles
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
                    set_number(layer, attribute, size)


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
        set_number(layer, 'in_channels', whole if transposed else part)
        set_number(layer, 'out_channels', part if transposed else whole)


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


def table_of(handlers: Sequence[LayerHandler]) -> HandlerTable[LayerHandler]:
    """Return the table of handlers, which is kept for the next call with the same ones."""
    # A module that is imported later may export a type under the name that a handler handles.
    return _table_of(tuple(handlers), len(sys.modules))


@functools.lru_cache(maxsize=8)
def _table_of(handlers: tuple[LayerHandler, ...], imported: int) -> HandlerTable[LayerHandler]:
    return HandlerTable(handlers)


def counted_by(model: nn.Module, handlers: Sequence[LayerHandler]) -> Callable[[Any], Any] | None:
    """Return what chooses the outputs of a network that count; None if all of them do."""
    handler = table_of(handlers).find(model)
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
    for resize in find_resizes(modules, shapes, handlers):
        resize.perform()


class Resize(NamedTuple):
    """What a handler is to do with one layer.

    Attributes:
        path: the path of the layer.
        layer: the layer.
        handler: the handler.
        shapes: local name of a tensor -> its new shape.
    """

    path: str
    layer: nn.Module
    handler: LayerHandler
    shapes: Shapes

    def perform(self) -> None:
        """Let the handler set the numbers of the layer.

        Raises:
            PluginError: the handler fails; the message names it.
        """
        try:
            self.handler.resize(self.layer, self.shapes)
        except EasyPrunerError:
            raise
        except Exception as error:
            at = traceback.extract_tb(error.__traceback__)[-1]
            raise PluginError(
                f'the layer handler {type(self.handler).__name__} fails on {self.path!r}, a '
                f'{type(self.layer).__name__}: {type(error).__name__}: {error} '
                f'({Path(at.filename).name}:{at.lineno})'
            ) from error


def find_resizes(
    modules: Mapping[str, nn.Module],
    shapes: LayerShapes,
    handlers: Sequence[LayerHandler],
) -> list[Resize]:
    """Return what handlers are to do; the arguments are those of :func:`resize_layers`."""
    table = table_of(handlers)
    changed: LayerShapes = with_computed(modules, shapes)
    kinds = {type(module): module for module in modules.values()}
    handler_of = {kind: table.find(module) for kind, module in kinds.items()}
    asking = {kind for kind, handler in handler_of.items() if handler and handler.inner}
    if asking:
        changed = _with_inner(modules, changed, asking)
    resizes = []
    for path, own in changed.items():
        layer = modules[path]
        handler = handler_of[type(layer)]
        if handler is not None:
            resizes.append(Resize(path, layer, handler, own))
    return resizes


def _with_inner(
    modules: Mapping[str, nn.Module], shapes: LayerShapes, asking: Set[type[nn.Module]]
) -> LayerShapes:
    """Return shapes with those of parts for each module of the asking types, inside out."""
    result = {path: dict(own) for path, own in shapes.items()}
    for path, own in shapes.items():
        around, part = path, ''
        while around:
            around, _, name = around.rpartition('.')
            part = f'{name}.{part}' if part else name
            if type(modules[around]) in asking:
                found = result.setdefault(around, {})
                found.update({f'{part}.{local}': shape for local, shape in own.items()})
    return dict(sorted(result.items(), key=lambda item: (not item[0], -item[0].count('.'))))


def set_number(layer: nn.Module, name: str, value: Any) -> None:
    """Set an attribute of a layer, as ``setattr`` does in a fraction of the time."""
    own = layer.__dict__
    if name in own and type(layer).__setattr__ is nn.Module.__setattr__:
        own[name] = value
    else:
        setattr(layer, name, value)
