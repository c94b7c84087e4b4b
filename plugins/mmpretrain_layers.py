"""Layer handlers for layers and networks of mmpretrain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from easypruner import LayerHandler, hookimpl


class ChannelsFirstLayerNorm(LayerHandler):
    """Sets the number of channels of layer norms over maps."""

    handles = ('mmpretrain.models.utils.norm.LayerNorm2d',)

    def resize(self, layer: Any, shapes: Mapping[str, torch.Size]) -> None:
        if 'weight' in shapes:
            layer.normalized_shape = tuple(shapes['weight'])
            layer.num_channels = shapes['weight'][0]


class GlobalResponseNorm(LayerHandler):
    """Sets the number of channels of global response norms."""

    handles = ('mmpretrain.models.utils.norm.GRN',)

    def resize(self, layer: Any, shapes: Mapping[str, torch.Size]) -> None:
        if 'gamma' in shapes:
            layer.in_channels = shapes['gamma'][0]


class MMPretrainTransformer(LayerHandler):
    """Sets the width that a vision transformer reports."""

    handles = ('mmpretrain.models.backbones.vision_transformer.VisionTransformer',)

    def resize(self, layer: Any, shapes: Mapping[str, torch.Size]) -> None:
        for tokens in ('pos_embed', 'cls_token'):
            if tokens in shapes:
                layer.embed_dims = shapes[tokens][-1]


easypruner_components = hookimpl(
    lambda: [ChannelsFirstLayerNorm, GlobalResponseNorm, MMPretrainTransformer]
)
