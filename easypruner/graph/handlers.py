"""Handlers for torch's own layers: they keep a module's numbers true after a cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from easypruner.contracts import LayerHandler
from easypruner.graph.rules.contractions import removes_whole_groups

Shapes = Mapping[str, torch.Size]


class ConvolutionHandler(LayerHandler):
    """Convolutions, plain and transposed: channels and groups."""

    handles = (_ConvNd,)

    def resize(self, layer: nn.Module, shapes: Shapes) -> None:
        assert isinstance(layer, _ConvNd)
        if 'weight' not in shapes:
            return
        old, new = layer.weight.shape, shapes['weight']
        per_group = old[0] // layer.groups
        if layer.groups > 1 and removes_whole_groups(old[1], per_group):
            layer.groups = layer.groups * new[0] // old[0]
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


TORCH_HANDLERS: tuple[LayerHandler, ...] = (
    ConvolutionHandler(),
    LinearHandler(),
    BatchNormHandler(),
    LayerNormHandler(),
    GroupNormHandler(),
    PReLUHandler(),
    EmbeddingHandler(),
)


def find_handler(layer: nn.Module, handlers: Sequence[LayerHandler]) -> LayerHandler | None:
    """Return the first handler for the type of ``layer``."""
    return next((h for h in handlers if isinstance(layer, h.handles)), None)


def resize_layers(
    model: nn.Module, shapes: Mapping[str, torch.Size], handlers: Sequence[LayerHandler]
) -> None:
    """Let the handlers set the numbers of every layer whose tensors change shape.

    Args:
        model: with its tensors still in their old shapes.
        shapes: dotted name -> new shape, under every name a tied tensor has.
        handlers: in order of precedence.
    """
    done: set[int] = set()
    for path, own in _by_module(shapes).items():
        layer = model.get_submodule(path)
        # A module that stands at several places is one module.
        if id(layer) in done:
            continue
        done.add(id(layer))
        handler = find_handler(layer, handlers)
        if handler is not None:
            handler.resize(layer, own)


def _by_module(shapes: Mapping[str, torch.Size]) -> dict[str, dict[str, torch.Size]]:
    modules: dict[str, dict[str, torch.Size]] = {}
    for name, shape in shapes.items():
        path, _, local = name.rpartition('.')
        modules.setdefault(path, {})[local] = shape
    return modules
