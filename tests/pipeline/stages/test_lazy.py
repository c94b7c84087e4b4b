"""Lazy regularization: a Train stage that pushes only at some of its updates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.helpers.plugin_files import write_plugin
from tests.helpers.tiny import prune, tiny_config, tiny_stages, write_config

NOTED = """
from easypruner import Regularizer, hookimpl

class Noted(Regularizer):
    def penalty(self, graph, masks):
        raise AssertionError('its gradient is added directly')

    def add_gradient(self, graph, masks, progress):
        with open('FOLDER/pushes.txt', 'a') as file:
            scale = 1.0 if progress.grad_scale is None else float(progress.grad_scale)
            print(progress.update, scale, file=file)

class Ruling(Regularizer):
    def add_gradient(self, graph, masks, progress):
        pass

@hookimpl
def easypruner_components():
    return [Noted, Ruling]
"""


def run(folder: Path, **stage: Any) -> int:
    plugin = write_plugin(folder / 'plugins', 'noted.py', NOTED.replace('FOLDER', str(folder)))
    stages = [dict(type='Train', name='pushed', epochs=3, **stage), *tiny_stages()[:2]]
    config = write_config(folder, tiny_config(stages=stages))
    return prune(config, folder / 'run', '--plugins', str(plugin.parent))


def test_a_stage_pushes_at_the_configured_interval(tmp_path: Path) -> None:
    """Nine updates: four, four and one. Before, the plan tries the regularizer once."""
    noted = dict(type='Noted', strength=1.0)
    assert run(tmp_path, regularizer=noted, regularize_every=4) == 0
    tried, *pushes = (tmp_path / 'pushes.txt').read_text().splitlines()
    assert tried == '0 1.0'
    assert pushes == ['0 4.0', '4 4.0', '8 1.0']


@pytest.mark.parametrize(
    ('stage', 'message'),
    [
        (dict(regularize_every=0), 'regularize_every=0 of Train; expected a whole number'),
        (dict(regularize_every=2), 'there is none'),
        (
            dict(regularizer=dict(type='Ruling', strength=1.0), regularize_every=2),
            'Ruling does not have one',
        ),
        (
            dict(regularizer=dict(type='GradDecay'), regularize_every=2),
            'GradDecay does not have one',
        ),
    ],
)
def test_impossible_settings_are_refused(
    stage: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, **stage) == 2
    error = ' '.join(capsys.readouterr().err.split())
    assert message in error and 'stages[0]' in error
    assert not (tmp_path / 'run').exists()
