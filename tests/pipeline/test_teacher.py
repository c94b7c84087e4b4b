"""The teacher has the weights of the unpruned network, from before any regularization."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.tiny import prune, tiny_config, write_config

Content = dict[str, Any]

BASELINE = dict(type='Train', name='baseline', epochs=1, row='baseline')
SELECT = dict(type='SelectMask', source=dict(type='BNScale', budget=dict(type='Macs', keep=0.5)))
CUT = [dict(type='Prune'), dict(type='Distill', epochs=1), dict(type='Report')]


def pushed(regularizer: str = 'GradDecay', **arguments: Any) -> Content:
    regularizers: Content = dict(type=regularizer, **arguments)
    return dict(type='Train', name='pushed', epochs=1, row='pushed', regularizer=regularizers)


def config(folder: Path, *stages: Content, **changes: Any) -> Path:
    return write_config(folder, tiny_config(stages=[*stages, *CUT], **changes))


def teacher(folder: Path) -> str:
    (state,) = folder.glob('run/*_distill/state.json')
    return str(json.loads(state.read_text())['unpruned'])


@pytest.mark.parametrize(
    ('stages', 'expected'),
    [
        ([BASELINE, SELECT, pushed()], '00_baseline/weights.pth'),
        ([BASELINE, SELECT, dict(type='Zero')], '00_baseline/weights.pth'),
        ([BASELINE, pushed('GlobalSparsity', strength=1e-3), SELECT], '00_baseline/weights.pth'),
        ([BASELINE, SELECT], '00_baseline/weights.pth'),
        # Without training, the teacher would have random weights.
        ([pushed('GlobalSparsity', strength=1e-3), SELECT], '00_pushed/weights.pth'),
    ],
)
def test_it_has_the_weights_from_before_the_first_push(
    stages: list[Content], expected: str, tmp_path: Path
) -> None:
    assert prune(config(tmp_path, *stages), tmp_path / 'run') == 0
    assert teacher(tmp_path) == expected


def test_weights_from_outside_are_trained(tmp_path: Path) -> None:
    assert prune(config(tmp_path / 'first', BASELINE, SELECT), tmp_path / 'first' / 'run') == 0
    start = tmp_path / 'first' / 'run' / '00_baseline' / 'weights.pth'
    second = config(tmp_path, pushed('GlobalSparsity', strength=1e-3), SELECT, load_from=str(start))
    assert prune(second, tmp_path / 'run') == 0
    assert teacher(tmp_path) == 'initial.pth'


def test_the_plan_names_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stages = [BASELINE, SELECT, pushed()]
    assert prune(config(tmp_path, *stages), tmp_path / 'run', '--plan') == 0
    assert 'teacher: the network before pushed' in capsys.readouterr().out
