"""Handlers for torch's own layers."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from easypruner.graph.cutting.layer_handler import LayerHandler, Shapes


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
