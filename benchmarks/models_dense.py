"""Detectors of Ultralytics and networks of segmentation-models-pytorch, with random weights."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

_DETECTION_SIDE, _SEGMENTATION_SIDE = 128, 96
# Networks that read words need another network, and the variants for other sizes of images and
# the larger scales have the same layers.
_OTHERS = re.compile(r'world|yoloe|-p[26]|cls-resnet|v8-rtdetr|rtdetr-(resnet101|x)|v10[^n]|v9[^t]')
_ENCODERS = (
    'resnet18', 'resnext50_32x4d', 'se_resnet50', 'vgg11_bn', 'densenet121', 'dpn68',
    'efficientnet-b0', 'mobilenet_v2', 'mobileone_s0', 'inceptionv4', 'xception', 'mit_b0',
    'timm-skresnet18',
)  # fmt: skip
_OF_ENCODERS = 'Unet'


def list_ultralytics() -> Iterator[str]:
    """Yield the architectures, as their yaml files, that read nothing but an image."""
    import ultralytics

    folder = Path(ultralytics.__file__).parent / 'cfg' / 'models'
    yield from sorted(f.stem for f in folder.rglob('*.yaml') if not _OTHERS.search(f.stem))


def build_ultralytics(name: str) -> tuple[nn.Module, Tensor]:
    """Return the smallest network of an architecture."""
    from ultralytics import RTDETR, YOLO

    kind: Any = RTDETR if name.startswith('rtdetr') else YOLO
    network: nn.Module = kind(f'{name}.yaml').model
    return network.requires_grad_(), _image(_DETECTION_SIDE)


def list_segmentation() -> Iterator[str]:
    """Yield ``ARCHITECTURE-ENCODER``: each architecture, and one with each family of encoders."""
    import segmentation_models_pytorch as smp

    for kind in smp.MODEL_ARCHITECTURES_MAPPING.values():
        yield f'{kind.__name__}-{_ENCODERS[0]}'
    yield from (f'{_OF_ENCODERS}-{encoder}' for encoder in _ENCODERS[1:])


def build_segmentation(name: str) -> tuple[nn.Module, Tensor]:
    """Return a network of segmentation-models-pytorch."""
    import segmentation_models_pytorch as smp

    kind, _, encoder = name.partition('-')
    if kind == 'DPT':
        return smp.DPT('tu-vit_tiny_patch16_224', encoder_weights=None), _image(224)
    return getattr(smp, kind)(encoder, encoder_weights=None), _image(_SEGMENTATION_SIDE)


def _image(side: int) -> Tensor:
    return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
