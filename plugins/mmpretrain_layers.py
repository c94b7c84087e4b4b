"""Layer handlers for layers and networks of mmpretrain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from easypruner import LayerHandler, hookimpl
from easypruner.graph.cutting.handlers import SizesHandler
from easypruner.graph.recording.leaves import note_drops

note_drops('mmcv.cnn.bricks.drop.DropPath')


class ChannelsFirstLayerNorm(LayerHandler):
    """Sets the number of channels of layer norms over maps."""

    handles = ('mmpretrain.models.utils.norm.LayerNorm2d',)

    def resize(self, layer: Any, shapes: Mapping[str, torch.Size]) -> None:
        if 'weight' in shapes:
            layer.normalized_shape = tuple(shapes['weight'])
            layer.num_channels = shapes['weight'][0]


class GlobalResponseNorm(SizesHandler):
    """Sets the number of channels of global response norms."""

    handles = ('mmpretrain.models.utils.norm.GRN',)
    sizes: ClassVar = {'gamma': ('in_channels',)}


class MMPretrainTransformer(SizesHandler):
    """Sets the width that a vision transformer reports."""

    handles = ('mmpretrain.models.backbones.vision_transformer.VisionTransformer',)
    sizes: ClassVar = dict.fromkeys(('pos_embed', 'cls_token'), (None, None, 'embed_dims'))


easypruner_components = hookimpl(
    lambda: [ChannelsFirstLayerNorm, GlobalResponseNorm, MMPretrainTransformer]
)
