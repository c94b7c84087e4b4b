"""A run that quantizes its pruned network: evaluated, saved, rebuilt, resumed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import easypruner
from easypruner.graph import NetworkRecord
from easypruner.plugins.handlers import plugin_transforms
from tests.helpers.plugin_files import write_plugin
from tests.helpers.tiny import (
    accuracy_of,
    original_model,
    prune,
    summary,
    tiny_config,
    write_config,
)

SOURCE = dict(type='L1Norm', budget=dict(type='Macs', keep=0.5))
TRAINED = dict(type='Train', epochs=2, row='baseline')
QUANTIZED: list[dict[str, Any]] = [
    TRAINED,
    dict(type='SelectMask', source=SOURCE),
    dict(type='Prune'),
    dict(type='Train', name='finetune', epochs=1, row='finetuned'),
    dict(type='Quantize'),
    dict(type='Evaluate', row='again'),
    dict(type='Report'),
]


@pytest.fixture(scope='module')
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('quantized')
    assert prune(write_config(folder, tiny_config(stages=QUANTIZED)), folder / 'run') == 0
    return folder / 'run'


def rows(run: Path) -> dict[str, dict[str, Any]]:
    return {row['name']: row for row in summary(run)['rows']}


def test_its_row_has_the_cost_of_the_cut_and_a_smaller_file(run: Path) -> None:
    found = rows(run)
    before, after = found['finetuned'], found['quantized']
    assert (after['macs'], after['params']) == (before['macs'], before['params'])
    assert after['bytes'] < before['bytes']
    assert abs(after['accuracy'] - before['accuracy']) < 10
    assert found['again'] == {**after, 'name': 'again'}


def test_its_files_rebuild_it(run: Path, tmp_path: Path) -> None:
    for name in ('pruned.pth', 'architecture.json', 'pruned_config.py'):
        shutil.copy(run / name, tmp_path / name)
    accuracy = accuracy_of(tmp_path / 'pruned_config.py', tmp_path / 'evaluation')
    assert accuracy == rows(run)['quantized']['accuracy']


def test_load_pruned_rebuilds_it(run: Path) -> None:
    weights = run / 'pruned.pth'
    model = easypruner.load_pruned(original_model, weights, run / 'architecture.json')
    state = torch.load(weights, weights_only=True)
    assert state['backbone.conv1.weight'].dtype == torch.int8
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name])


def test_the_record_is_a_chain(run: Path) -> None:
    record = NetworkRecord.load(run / 'architecture.json', plugin_transforms())
    assert [type(t).__name__ for t in record.transforms] == ['ArchitectureRecord', 'Int8Weights']


def test_a_run_resumes_after_it(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / 'run'
    shutil.copytree(run, folder)
    for stage in ('05_evaluate', '06_report'):
        shutil.rmtree(folder / stage)
    config = write_config(tmp_path, tiny_config(stages=QUANTIZED))
    assert prune(config, folder, '--resume') == 0
    assert rows(folder) == rows(run)


@pytest.mark.parametrize(
    'later',
    [
        dict(type='Train', name='later', epochs=1),
        dict(type='SelectMask', name='later', source=SOURCE),
        dict(type='Reinitialise', name='later'),
        dict(type='Quantize', name='later', row=None),
    ],
    ids=lambda stage: stage['type'],
)
def test_no_stage_trains_or_cuts_after_it(
    later: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stages = [TRAINED, dict(type='Quantize'), later, dict(type='Report')]
    assert prune(write_config(tmp_path, tiny_config(stages=stages)), tmp_path / 'run') == 2
    message = capfd.readouterr().err
    mistake = "stage 'quantize' has made the weights integers"
    assert message.startswith(f'easypruner: stages[2]: {mistake}')


def test_without_a_cut_there_is_a_record_too(tmp_path: Path) -> None:
    stages = [dict(type='Train', epochs=1), dict(type='Quantize'), dict(type='Report')]
    assert prune(write_config(tmp_path, tiny_config(stages=stages)), tmp_path / 'run') == 0
    accuracy = accuracy_of(tmp_path / 'run' / 'pruned_config.py', tmp_path / 'evaluation')
    assert accuracy == rows(tmp_path / 'run')['quantized']['accuracy']


DEPTHWISE = """
from mmengine.registry import MODELS
from torch import nn
from easypruner import hookimpl

@MODELS.register_module(force=True)
class Depthwise(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 16, 3)
        self.second = nn.Conv2d(16, 16, 3, groups=16)

    def forward(self, x):
        return (self.second(self.first(x)),)

@hookimpl
def easypruner_configure_runner(runner, state):
    pass
"""


def test_layers_that_stay_in_float_are_warnings(tmp_path: Path) -> None:
    plugins = write_plugin(tmp_path / 'plugins', 'depthwise.py', DEPTHWISE).parent
    content = tiny_config(stages=[dict(type='Quantize'), dict(type='Report')])
    content['model']['backbone'] = dict(type='mmengine.Depthwise')
    config = write_config(tmp_path, content)
    assert prune(config, tmp_path / 'run', '--plugins', str(plugins)) == 0
    (warning,) = summary(tmp_path / 'run')['warnings']
    assert warning.startswith('quantize: 1 of 3 layers stay in float, its groups have 1 channels')
    assert warning.endswith('backbone.second')
