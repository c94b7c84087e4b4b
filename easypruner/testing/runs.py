"""Whole runs in a few seconds, with an 8-layer network and some images of digits."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from easypruner.cli.main import main

TRAIN_IMAGES = 96
VAL_IMAGES = 60
BATCH = 32

StageConfig = Mapping[str, Any]
Folders = str | Path | Sequence[str | Path]


def tiny_config(stages: Sequence[StageConfig]) -> dict[str, Any]:
    """Return the content of a config with scikit-learn's digits, a narrow ResNet-8 and stages."""
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
        stages=list(stages),
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


def run_stages(
    stages: Sequence[StageConfig], folder: str | Path, plugins: Folders = ()
) -> dict[str, Any]:
    """Run stages on the digits with ``easypruner prune``, and return the content of summary.json.

    Args:
        stages: the stages of the run; a Report stage is added.
        folder: the folder for the config and for the work directory, which is called ``run``.
        plugins: one or several folders in which each file is a plugin.

    Raises:
        AssertionError: the run failed; the message is that of the command.
    """
    # MMEngine takes a second to import, and most tests of plugins do without it.
    from mmengine.config import Config

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config, work_dir = folder / 'tiny.py', folder / 'run'
    Config(tiny_config([*stages, dict(type='Report')])).dump(config)
    folders = [plugins] if isinstance(plugins, str | Path) else plugins
    options = [option for path in folders for option in ('--plugins', str(path))]
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            code = main(['prune', str(config), '--work-dir', str(work_dir), *options])
    finally:
        sys.stderr.write(printed.getvalue())
    message = printed.getvalue().rpartition('easypruner: ')[2].strip()
    assert code == 0, f'the run ended with code {code}: {message}'
    return json.loads((work_dir / 'summary.json').read_text(encoding='utf-8'))


def check_stage(stage: StageConfig, folder: str | Path, plugins: Folders = ()) -> dict[str, Any]:
    """Run a stage between selection and cut, and return the content of summary.json.

    Args:
        stage: the config of the stage.
        folder: the folder for the config and the work directory.
        plugins: one or several folders in which each file is a plugin.

    Raises:
        AssertionError: the run failed; the message is that of the command.
    """
    source = dict(type='BNScale', budget=dict(type='Macs', keep=0.6))
    stages: list[StageConfig] = [
        dict(type='Train', epochs=1, row='baseline'),
        dict(type='SelectMask', source=source),
        stage,
        dict(type='Prune'),
    ]
    return run_stages(stages, folder, plugins)
