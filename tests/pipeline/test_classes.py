"""A data set with another number of classes than the model's is one message before training."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from easypruner.pipeline.classes import model_classes
from tests.helpers.tiny import prune, tiny_config, write_config


@pytest.mark.parametrize('classes', [9, 11])
def test_another_number_of_classes_is_one_message(
    classes: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content = tiny_config()
    for loader in ('train_dataloader', 'val_dataloader'):
        content[loader]['dataset']['metainfo'] = dict(classes=list('abcdefghij'))
    assert prune(write_config(tmp_path, content), tmp_path / 'fits', '--plan') == 0
    content['model']['head']['num_classes'] = classes
    assert prune(write_config(tmp_path, content), tmp_path / 'run') == 2
    message = capfd.readouterr().err
    expected = f'the data set has 10 classes, but the ImageClassifier has {classes}; correct'
    assert f'train_dataloader: {expected}' in message
    assert f'val_dataloader: {expected}' in message
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
    ('parts', 'expected'),
    [
        (dict(head=SimpleNamespace(num_classes=4)), 4),
        (dict(backbone=SimpleNamespace(num_classes=4), head=SimpleNamespace()), 4),
        (dict(backbone=SimpleNamespace(num_classes=-1)), None),
        (dict(model=SimpleNamespace(config=SimpleNamespace(num_labels=4))), 4),
        (dict(model=SimpleNamespace(num_classes=4)), 4),
        (dict(num_classes=4), 4),
        ({}, None),
    ],
)
def test_where_models_have_their_number_of_classes(
    parts: dict[str, Any], expected: int | None
) -> None:
    model = nn.Module()
    vars(model).update(parts)
    assert model_classes(model) == expected


@pytest.mark.parametrize('checkpoint', ['', 'missing.pth'])
def test_pretrained_weights_that_are_missing_are_named(
    checkpoint: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content = tiny_config()
    content['model']['backbone']['init_cfg'] = dict(type='Pretrained', checkpoint=checkpoint)
    assert prune(write_config(tmp_path, content), tmp_path / 'run') == 2
    message = capfd.readouterr().err
    assert f'model.backbone.init_cfg.checkpoint={checkpoint!r} cannot be loaded' in message
    assert message.rstrip().endswith('model.backbone.init_cfg=None')
