"""Layer handlers for torch's own layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from easypruner.graph.cutting.layer_handler import LayerHandler, Shapes


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

    def resize(self, layer: nn.Module, shapes: Shapes) -> None:
        assert isinstance(layer, _ConvNd)
        if 'weight' not in shapes:
            return
        # The shapes do not tell the number of groups. It was set before this call.
        new = shapes['weight']
        whole, part = new[0], new[1] * layer.groups
        transposed = isinstance(layer, _ConvTransposeNd)
        layer.in_channels, layer.out_channels = (whole, part) if transposed else (part, whole)


class LinearHandler(SizesHandler):
    """Linear layers: the numbers of features."""

    handles = (nn.Linear,)
    sizes: ClassVar = {'weight': ('out_features', 'in_features')}


class BatchNormHandler(SizesHandler):
    """Batch and instance norms: the number of features."""

    handles = (_NormBase,)
    sizes: ClassVar = {'weight': ('num_features',), 'running_mean': ('num_features',)}


class LayerNormHandler(LayerHandler):
    """Layer and RMS norms: the normalized shape."""

    handles = (nn.LayerNorm, nn.RMSNorm)

    def resize(self, layer: nn.Module, shapes: Shapes) -> None:
        assert isinstance(layer, (nn.LayerNorm, nn.RMSNorm))
        if 'weight' in shapes:
            layer.normalized_shape = tuple(shapes['weight'])


class GroupNormHandler(SizesHandler):
    """Group norms: the number of channels. The number of groups stays."""

    handles = (nn.GroupNorm,)
    sizes: ClassVar = {'weight': ('num_channels',)}


class PReLUHandler(SizesHandler):
    """PReLU: the number of slopes."""

    handles = (nn.PReLU,)
    sizes: ClassVar = {'weight': ('num_parameters',)}


class EmbeddingHandler(SizesHandler):
    """Embeddings: their number and width."""

    handles = (nn.Embedding, nn.EmbeddingBag)
    sizes: ClassVar = {'weight': ('num_embeddings', 'embedding_dim')}


class RecurrentHandler(LayerHandler):
    """RNN, LSTM and GRU: the input features, the hidden units, and the width of a projection."""

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


class RecurrentCellHandler(SizesHandler):
    """Cells of RNN, LSTM and GRU: the input features and the hidden units."""

    handles = (nn.RNNCellBase,)
    sizes: ClassVar = {'weight_ih': (None, 'input_size'), 'weight_hh': (None, 'hidden_size')}


class AttentionHandler(SizesHandler):
    """Multi-head attention: the widths of queries, keys, values and heads. Their number stays."""

    handles = (nn.MultiheadAttention,)
    sizes: ClassVar = {
        'q_proj_weight': (None, 'embed_dim'),
        'k_proj_weight': (None, 'kdim'),
        'v_proj_weight': (None, 'vdim'),
    }

    def resize(self, layer: nn.Module, shapes: Shapes) -> None:
        assert isinstance(layer, nn.MultiheadAttention)
        super().resize(layer, shapes)
        if 'in_proj_weight' in shapes:
            layer.embed_dim = layer.kdim = layer.vdim = shapes['in_proj_weight'][1]
        layer.head_dim = layer.embed_dim // layer.num_heads


class BilinearHandler(SizesHandler):
    """Bilinear layers: the numbers of features."""

    handles = (nn.Bilinear,)
    sizes: ClassVar = {'weight': ('out_features', 'in1_features', 'in2_features')}


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
