"""PrunedModel: the pruned network as a config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from torch import nn

import easypruner
from easypruner import LayerHandler, PrunedModel, Transform
from easypruner.base.json_fields import Field
from easypruner.cli.main import main
from easypruner.errors import RecordError
from easypruner.graph import NetworkRecord
from tests.helpers.forked import run_copy

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


class Brief(Transform):
    """Has the name and the JSON of the transform that the plugin defines."""

    def apply(self, model: nn.Module, handlers: Sequence[LayerHandler]) -> nn.Module:
        return model

    def to_json(self) -> Mapping[str, Any]:
        return {'layers': ['head.fc']}

    @classmethod
    def from_json(cls, content: Field) -> Brief:
        return cls()


def test_another_process_loads_the_plugin_of_a_transform(tmp_path: Path) -> None:
    plugins = tmp_path / 'my_plugins'
    assert main(['new-plugin', 'Brief', '--kind', 'transform', '--dir', str(plugins)]) == 0
    record = tmp_path / 'architecture.json'
    NetworkRecord((Brief(),)).save(record)
    arguments = dict(type='easypruner.PrunedModel', model=ORIGINAL, architecture=str(record))

    def show(plugins: list[str]) -> None:
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            print(MODELS.build(arguments | dict(plugins=plugins)).head.fc.weight.dtype)

    def run(*plugins: Path) -> str:
        return run_copy(lambda: show([*map(str, plugins)]), tmp_path)[1]

    assert run(plugins) == 'torch.bfloat16\n'
    assert "has a transform 'Brief', which no loaded plugin defines" in run()
    moved = run(tmp_path / 'moved')
    assert f'there is no plugin folder {str(tmp_path / "moved")!r}; check the path' in moved
