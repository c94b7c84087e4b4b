"""Layer handlers for layers and networks of timm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from easypruner import LayerHandler, hookimpl
from easypruner.graph.recording.leaves import note_drops

_TOKENS = ('pos_embed', 'cls_token')
_WIDTHS = ('embed_dim', 'num_features', 'head_hidden_size')

note_drops('timm.layers.drop.DropPath')


class TimmTransformer(LayerHandler):
    """Sets the widths that a transformer reports, such as ``num_features``."""

    handles = (
        'timm.models.vision_transformer.VisionTransformer',
        'timm.models.beit.Beit',
        'timm.models.cait.Cait',
        'timm.models.convit.ConVit',
        'timm.models.volo.VOLO',
        'timm.models.xcit.Xcit',
    )

    def resize(self, layer: Any, shapes: Mapping[str, torch.Size]) -> None:
        for tokens in _TOKENS:
            before = getattr(layer, tokens, None)
            if tokens in shapes and isinstance(before, Tensor):
                _replace(layer, before.shape[-1], shapes[tokens][-1])
                return


def _replace(layer: Any, before: int, after: int) -> None:
    for name in _WIDTHS:
        if getattr(layer, name, None) == before:
            setattr(layer, name, after)


class TimmPositions(LayerHandler):
    """Sets the head width of relative position embeddings."""

    handles = ('timm.layers.bottleneck_attn.PosEmbedRel',)

    def resize(self, layer: Any, shapes: Mapping[str, torch.Size]) -> None:
        if 'height_rel' in shapes:
            layer.dim_head = shapes['height_rel'][1]


easypruner_components = hookimpl(lambda: [TimmTransformer, TimmPositions])
