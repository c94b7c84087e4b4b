"""PrunedModel: the pruned network as a config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from torch import nn

import easypruner
from easypruner import PrunedModel
from easypruner.errors import RecordError

PREPROCESSOR = dict(num_classes=10, mean=[78.0], std=[96.0])
ORIGINAL = dict(
    type='ImageClassifier',
    backbone=dict(type='easypruner.ResNetCifar', depth=8, width=4, in_channels=1),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=16),
)


def build(config: dict[str, Any]) -> nn.Module:
    model: nn.Module = MODELS.build(config)
    return model


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """The record of a cut of every second unit."""
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = build(ORIGINAL)
    inputs = torch.zeros(1, 1, 8, 8)
    graph = easypruner.trace(model, inputs)
    masks = {name: torch.arange(group.size) % 2 == 0 for name, group in graph.groups.items()}
    easypruner.prune(model, masks, graph=graph).save(tmp_path / 'architecture.json')
    torch.save(model.state_dict(), tmp_path / 'pruned.pth')
    return tmp_path / 'architecture.json'


def test_it_is_an_instance_of_the_original_class(record: Path) -> None:
    config = dict(type='easypruner.PrunedModel', model=ORIGINAL, architecture=str(record))
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model, original = build(config), build(ORIGINAL)
    assert type(model) is type(original)
    assert model.state_dict().keys() == original.state_dict().keys()
    model.load_state_dict(torch.load(record.with_name('pruned.pth'), weights_only=True))
    assert model(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_the_data_preprocessor_of_a_runner_is_passed_on(record: Path) -> None:
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model: Any = PrunedModel(ORIGINAL, record, data_preprocessor=PREPROCESSOR)
        assert model.data_preprocessor.mean.flatten().tolist() == [78.0]
        own = ORIGINAL | dict(data_preprocessor=PREPROCESSOR | dict(mean=[1.0]))
        model = PrunedModel(own, record, data_preprocessor=PREPROCESSOR)
        assert model.data_preprocessor.mean.flatten().tolist() == [1.0]


def test_the_config_is_left_as_it_was(record: Path) -> None:
    before = repr(ORIGINAL)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        PrunedModel(ORIGINAL, record, data_preprocessor=PREPROCESSOR)
    assert repr(ORIGINAL) == before


def test_another_original_is_refused(record: Path) -> None:
    other = ORIGINAL | dict(backbone=ORIGINAL['backbone'] | dict(depth=20, width=8))
    with (
        DefaultScope.overwrite_default_scope('mmpretrain'),
        pytest.raises(RecordError, match='expects'),
    ):
        PrunedModel(other, record)


def test_a_missing_record() -> None:
    with (
        DefaultScope.overwrite_default_scope('mmpretrain'),
        pytest.raises(RecordError, match=r'nowhere\.json'),
    ):
        PrunedModel(ORIGINAL, 'nowhere.json')
