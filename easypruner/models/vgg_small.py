"""VGG networks with batch norms and any widths, for small images (Simonyan and Zisserman, 2015)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmpretrain.models.backbones.base_backbone import BaseBackbone
from torch import Tensor, nn


class VGGSmall(BaseBackbone):
    """Stages of 3x3 convolutions, each with a batch norm and a ReLU. Pooling halves the maps.

    Args:
        stages: the numbers of output channels of the convolutions of each stage. There is a pooling
            of 2x2 between two stages.
        in_channels: the number of channels of the images.
        init_cfg: the initialization, as for all modules of MMEngine.

    Raises:
        ValueError: a stage has no convolutions, or a number of channels is not one.
    """

    def __init__(
        self,
        stages: Sequence[Sequence[int]] = ((16,), (32, 32), (64, 64)),
        in_channels: int = 3,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(
            init_cfg
            or [
                dict(type='Kaiming', layer='Conv2d', mode='fan_out', nonlinearity='relu'),
                dict(type='Constant', layer='BatchNorm2d', val=1),
            ]
        )
        if not stages or not all(
            stage and all(type(width) is int and width > 0 for width in stage) for stage in stages
        ):
            raise ValueError(
                f'stages={stages!r} of VGGSmall; expected the numbers of channels of each stage, '
                'such as [[16], [32, 32], [64, 64]]'
            )
        self.stages = nn.Sequential()
        for number, widths in enumerate(stages):
            layers: list[nn.Module] = [nn.MaxPool2d(2)] if number else []
            for width in widths:
                convolution = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
                layers += [convolution, nn.BatchNorm2d(width), nn.ReLU()]
                in_channels = width
            self.stages.append(nn.Sequential(*layers))

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """Return the feature maps of the last stage, in a tuple with one element."""
        return (self.stages(x),)
