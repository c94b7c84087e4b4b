"""ResNets of depth 6n+2 for small images (He et al., 2016, section 4.2)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from mmpretrain.models.backbones.base_backbone import BaseBackbone
from torch import Tensor, nn

Shortcut = Literal['projection', 'padding']
_DEEPEST = 1202


class _Block(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.added = stride, outputs - inputs
        self.downsample: nn.Module | None = None
        if shortcut == 'projection' and (stride != 1 or inputs != outputs):
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(out)) + self._shortcut(x))

    def _shortcut(self, x: Tensor) -> Tensor:
        if self.downsample is not None:
            return self.downsample(x)
        if self.stride == 1 and self.added == 0:
            return x
        before = self.added // 2
        planes = x[:, :, :: self.stride, :: self.stride]
        return nn.functional.pad(planes, (0, 0, 0, 0, before, self.added - before))


class ResNetCifar(BaseBackbone):
    """ResNet of depth 6n+2 with three stages. The second and third stage double the channels.

    Args:
        depth: the depth of the network: 20, 32, 44, 56, 110, ...
        in_channels: the number of channels of the images.
        width: the number of channels of the first stage.
        shortcut: ``'projection'`` (1x1 convolutions where shapes change, option B of the paper) or
            ``'padding'`` (strided slices padded with zeros, option A). With padding, only channels
            inside blocks can be pruned, because the widths of stages are fixed.
        init_cfg: the initialization, as for all modules of MMEngine.

    Raises:
        ValueError: the depth is not 6n+2, or the shortcut is not known.
    """

    def __init__(
        self,
        depth: int = 20,
        in_channels: int = 3,
        width: int = 16,
        shortcut: Shortcut = 'projection',
        init_cfg: Any = None,
    ) -> None:
        super().__init__(
            init_cfg
            or [
                dict(type='Kaiming', layer='Conv2d', mode='fan_out', nonlinearity='relu'),
                dict(type='Constant', layer='BatchNorm2d', val=1),
            ]
        )
        if not 8 <= depth <= _DEEPEST or (depth - 2) % 6:
            raise ValueError(
                f'depth={depth} of ResNetCifar; expected 6n+2, such as 20, 32, 44, 56 or 110, '
                f'up to {_DEEPEST}'
            )
        if shortcut not in ('projection', 'padding'):
            raise ValueError(
                f"shortcut={shortcut!r} of ResNetCifar; expected 'projection' or 'padding'"
            )
        self.conv1 = nn.Conv2d(in_channels, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.stages = nn.Sequential()
        inputs = width
        for number in range(3):
            outputs = width * 2**number
            blocks = nn.Sequential()
            for position in range((depth - 2) // 6):
                stride = 2 if number > 0 and position == 0 else 1
                blocks.append(_Block(inputs, outputs, stride, shortcut))
                inputs = outputs
            self.stages.append(blocks)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """Return the feature maps of the last stage, in a tuple with one element."""
        return (self.stages(torch.relu(self.bn1(self.conv1(x)))),)
