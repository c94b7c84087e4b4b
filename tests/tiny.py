"""A whole run in seconds: an 8-layer network on a few digits, as a config to change."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from mmengine.config import Config

from easypruner.cli import main

TRAIN_IMAGES = 96
VAL_IMAGES = 60
BATCH = 32


def tiny_config(**changes: Any) -> dict[str, Any]:
    """Return the content of a config; a key given as None is left out."""
    return {key: value for key, value in {**_content(), **changes}.items() if value is not None}


def tiny_stages() -> list[dict[str, Any]]:
    """Return the stages of the whole method, an epoch or two each."""
    return [
        dict(type='Train', name='baseline', epochs=2, row='baseline'),
        dict(type='SelectMask', source=_source()),
        dict(
            type='Train',
            name='mask_sparsity',
            epochs=2,
            row='sparse',
            regularizer=dict(type='MaskSparsity', strength=dict(reach=5.0)),
        ),
        dict(type='Prune'),
        dict(type='Calibrate', batches=2),
        dict(type='Train', name='finetune', epochs=1, row='finetuned'),
        dict(type='Report'),
    ]


def write_config(folder: Path, content: dict[str, Any] | None = None, name: str = 'tiny') -> Path:
    """Write a config file, :func:`tiny_config` unless given, and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f'{name}.py'
    Config(copy.deepcopy(content or tiny_config())).dump(path)
    return path


def prune(config: Path, work_dir: Path, *arguments: str) -> int:
    """Run ``easypruner prune`` in this process and return its exit code."""
    return main(['prune', str(config), '--work-dir', str(work_dir), *arguments])


def summary(work_dir: Path) -> dict[str, Any]:
    """Return the content of a run's summary.json."""
    content: dict[str, Any] = json.loads((work_dir / 'summary.json').read_text())
    return content


def _content() -> dict[str, Any]:
    return dict(
        default_scope='mmpretrain',
        data_preprocessor=dict(num_classes=10, mean=[78.0], std=[96.0]),
        model=dict(
            type='ImageClassifier',
            backbone=dict(type='easypruner.ResNetCifar', depth=8, width=4, in_channels=1),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=10, in_channels=16),
        ),
        train_dataloader=_loader('train', TRAIN_IMAGES, shuffle=True),
        val_dataloader=_loader('val', VAL_IMAGES, shuffle=False),
        val_evaluator=dict(type='Accuracy', topk=(1,)),
        val_cfg=dict(),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)),
        param_scheduler=dict(type='CosineAnnealingLR', by_epoch=True, convert_to_iter_based=True),
        train_cfg=dict(max_epochs=2),
        stages=tiny_stages(),
    )


def _loader(split: str, images: int, shuffle: bool) -> dict[str, Any]:
    crop = [dict(type='RandomCrop', crop_size=8, padding=1)] if shuffle else []
    return dict(
        batch_size=BATCH,
        num_workers=0,
        dataset=dict(
            type='easypruner.Digits',
            split=split,
            scale=1,
            indices=images,
            pipeline=[*crop, dict(type='PackInputs')],
        ),
        sampler=dict(type='DefaultSampler', shuffle=shuffle),
        collate_fn=dict(type='default_collate'),
    )


def _source() -> dict[str, Any]:
    return dict(type='BNScale', budget=dict(type='Macs', keep=0.5))
