"""Layer handlers for layers of torchvision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from easypruner import LayerHandler, hookimpl
from easypruner.graph.recording.leaves import note_drops

note_drops('torchvision.ops.stochastic_depth.StochasticDepth')


class DeformableConvolution(LayerHandler):
    """Sets the channels of deformable convolutions; their number of groups stays the same."""

    handles = ('torchvision.ops.deform_conv.DeformConv2d',)

    def resize(self, layer: Any, shapes: Mapping[str, torch.Size]) -> None:
        if 'weight' in shapes:
            out, per_group = shapes['weight'][:2]
            layer.out_channels, layer.in_channels = out, per_group * layer.groups


easypruner_components = hookimpl(lambda: [DeformableConvolution])
