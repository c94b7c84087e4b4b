"""A config of mmpretrain's ResNet-50 on a made-up folder of images with three classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from tests.helpers.tiny import tiny_config

CLASSES = 3


def make_folder(folder: Path, side: int = 32, images: int = 2) -> Path:
    """Write some images for each class; return the folder."""
    generator = np.random.default_rng(0)
    for number in range(CLASSES):
        for image in range(images):
            file = folder / f'class_{number}' / f'{image}.png'
            file.parent.mkdir(parents=True, exist_ok=True)
            pixels = generator.integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(file)
    return folder


def resnet50_config(data: Path, classes: int = CLASSES, **changes: Any) -> dict[str, Any]:
    """Return the content of a config that evaluates, selects and cuts a ResNet-50."""
    loader = dict(
        batch_size=2,
        num_workers=0,
        dataset=dict(
            type='CustomDataset',
            data_root=str(data),
            pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')],
        ),
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='default_collate'),
    )
    model = dict(
        type='ImageClassifier',
        backbone=dict(type='ResNet', depth=50),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=classes, in_channels=2048),
    )
    source = dict(type='BNScale', budget=dict(type='Macs', keep=0.5))
    return tiny_config(
        data_preprocessor=dict(num_classes=classes, mean=[128.0] * 3, std=[64.0] * 3),
        model=model,
        train_dataloader=loader,
        val_dataloader=loader,
        stages=[dict(type='Evaluate'), dict(type='SelectMask', source=source), dict(type='Prune')],
        **changes,
    )


def with_random_statistics(model: nn.Module) -> nn.Module:
    """Draw what batch norms learn and measure, and return the model in evaluation mode."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean):
                nn.init.uniform_(tensor, -0.5, 0.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            module.num_batches_tracked = torch.tensor(7)
    return model.eval()
