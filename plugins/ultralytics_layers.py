"""Layer handlers for blocks of Ultralytics: widths that exports, fusions and training read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from easypruner import LayerHandler, hookimpl

_BLOCKS = 'ultralytics.nn.modules.block'


class UltralyticsSplitBlock(LayerHandler):
    """Sets the width at which a block splits its input in ``forward_split``, which exports use."""

    handles = tuple(f'{_BLOCKS}.{name}' for name in ('C2f', 'C2fAttn', 'RepNCSPELAN4'))
    inner: ClassVar = True

    def resize(self, layer: Any, shapes: Mapping[str, torch.Size]) -> None:
        if 'cv1.conv.weight' in shapes:
            layer.c = shapes['cv1.conv.weight'][0] // 2


class UltralyticsRepConv(LayerHandler):
    """Sets the channels that a re-parameterized convolution reads when its branches are merged."""

    handles = ('ultralytics.nn.modules.conv.RepConv',)
    inner: ClassVar = True

    def resize(self, layer: Any, shapes: Mapping[str, torch.Size]) -> None:
        if 'conv1.conv.weight' in shapes:
            convolution: nn.Conv2d = layer.conv1.conv  # it has its new numbers already
            layer.c1, layer.c2 = convolution.in_channels, convolution.out_channels
            layer.g = convolution.groups


class UltralyticsRepVGG(LayerHandler):
    """Sets the width of a depthwise block of several kernels."""

    handles = (f'{_BLOCKS}.RepVGGDW',)
    inner: ClassVar = True

    def resize(self, layer: Any, shapes: Mapping[str, torch.Size]) -> None:
        if 'conv.conv.weight' in shapes:
            layer.dim = shapes['conv.conv.weight'][0]


class UltralyticsNetwork(LayerHandler):
    """Says that the features of the neck, which a network returns beside its boxes, do not count.

    Losses read nothing but their height and width.
    """

    handles = ('ultralytics.nn.tasks.BaseModel',)

    def resize(self, layer: Any, shapes: Mapping[str, torch.Size]) -> None:
        """Do nothing: a network has no numbers of its own."""

    def counted(self, output: Any) -> Any:
        return _without_features(output)


def _without_features(value: Any) -> Any:
    if isinstance(value, Mapping):
        return [_without_features(item) for key, item in value.items() if key != 'feats']
    if isinstance(value, list | tuple):
        return [_without_features(item) for item in value]
    return value


easypruner_components = hookimpl(
    lambda: [
        UltralyticsSplitBlock,
        UltralyticsRepConv,
        UltralyticsRepVGG,
        UltralyticsNetwork,
    ]
)
