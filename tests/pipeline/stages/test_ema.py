"""Averaged weights: the result of a Train stage with ema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from easypruner.engine.checkpoint import read_weights
from easypruner.errors import ConfigError
from easypruner.pipeline.stages import Train
from tests.helpers.plugin_files import write_plugin
from tests.helpers.tiny import accuracy_of, prune, summary, tiny_config, tiny_stages, write_config

NOTE = """
import torch
from mmengine.hooks import Hook
from easypruner import hookimpl

class Note(Hook):
    priority = 'VERY_LOW'
    def before_train(self, runner):
        self.states = [self.state(runner)]
        step = runner.optim_wrapper.optimizer.register_step_post_hook
        step(lambda *args: self.states.append(self.state(runner)))
    def state(self, runner):
        return {name: tensor.clone() for name, tensor in runner.model.state_dict().items()}
    def before_val_epoch(self, runner):
        torch.save(self.state(runner), 'FOLDER/validated.pth')
    def after_train_epoch(self, runner):
        torch.save(self.states, 'FOLDER/states.pth')

class Stop(Hook):
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if (runner.epoch, batch_idx) == (1, 1):
            raise KeyboardInterrupt

@hookimpl
def easypruner_configure_runner(runner, state):
    if state.stage.name.endswith('averaged'):
        runner.register_hook(Note())
        if STOPPED:
            runner.register_hook(Stop())
"""
MOMENTUM = 0.2


def averaged(**arguments: Any) -> dict[str, Any]:
    stage = dict(type='Train', name='averaged', epochs=2, row='averaged', ema=MOMENTUM)
    return stage | arguments


def run(folder: Path, *stages: dict[str, Any], stopped: bool = False, **changes: Any) -> Path:
    """Run stages, and save each state of the weights in ``folder``; return the work directory."""
    folder.mkdir(parents=True, exist_ok=True)
    text = NOTE.replace('FOLDER', str(folder)).replace('STOPPED', str(stopped))
    plugin = write_plugin(folder / 'plugins', 'note.py', text)
    config = write_config(folder, tiny_config(stages=list(stages), **changes))
    code = prune(config, folder / 'run', '--plugins', str(plugin.parent))
    assert code == (130 if stopped else 0)
    return folder / 'run'


def oracle(states: list[dict[str, Tensor]], momentum: float = MOMENTUM) -> dict[str, Tensor]:
    """Average the states by the definition, in double precision."""
    average = {name: tensor.double() for name, tensor in states[0].items()}
    for state in states[1:]:
        for name, tensor in state.items():
            average[name] = (1 - momentum) * average[name] + momentum * tensor.double()
    return average


def assert_averages(weights: dict[str, Tensor], states: list[dict[str, Tensor]]) -> None:
    for name, expected in oracle(states).items():
        if weights[name].is_floating_point():
            torch.testing.assert_close(weights[name].double(), expected, rtol=1e-4, atol=1e-6)
        else:
            assert torch.equal(weights[name], states[-1][name])


def test_it_leaves_the_average_and_measures_it(tmp_path: Path) -> None:
    stages = [averaged(), dict(type='Evaluate', row='again'), dict(type='Report')]
    work_dir = run(tmp_path, *stages)
    states = torch.load(tmp_path / 'states.pth', weights_only=True)
    weights = read_weights(work_dir / '00_averaged' / 'weights.pth')
    assert len(states) == 2 * 3 + 1
    assert_averages(weights, states)
    validated = torch.load(tmp_path / 'validated.pth', weights_only=True)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in validated.items())
    first, again = summary(work_dir)['rows']
    assert first['accuracy'] == again['accuracy']


def test_it_counts_optimizer_updates(tmp_path: Path) -> None:
    """Three batches in an epoch and two in an update; the last update has one."""
    wrapper = dict(accumulative_counts=2)
    work_dir = run(tmp_path, averaged(optim_wrapper=wrapper), dict(type='Report'))
    states = torch.load(tmp_path / 'states.pth', weights_only=True)
    weights = read_weights(work_dir / '00_averaged' / 'weights.pth')
    # Running statistics change between updates, but are averaged at the updates.
    assert len(states) == 3 + 1
    assert_averages(weights, states)


def test_a_validation_within_the_stage_sees_it(tmp_path: Path) -> None:
    changes = dict(train_cfg=dict(max_epochs=1, val_interval=1))
    stage = averaged(epochs=1, row=None)
    work_dir = run(tmp_path, stage, dict(type='Evaluate'), dict(type='Report'), **changes)
    validated = torch.load(tmp_path / 'validated.pth', weights_only=True)
    weights = read_weights(work_dir / '00_averaged' / 'weights.pth')
    assert all(torch.equal(tensor, weights[name]) for name, tensor in validated.items())


def test_a_resumed_stage_ends_bit_for_bit_the_same(tmp_path: Path) -> None:
    whole = run(tmp_path / 'whole', averaged(), dict(type='Report'))
    stopped = run(tmp_path / 'stopped', averaged(), dict(type='Report'), stopped=True)
    assert prune(write_config(tmp_path / 'stopped', name='again'), stopped, '--resume') == 2
    assert prune(tmp_path / 'stopped' / 'tiny.py', stopped, '--resume') == 0
    one, other = (read_weights(r / '00_averaged' / 'weights.pth') for r in (whole, stopped))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    assert summary(whole)['rows'] == summary(stopped)['rows']


def test_it_works_with_masks_regularizers_and_a_cut(tmp_path: Path) -> None:
    stages = tiny_stages()
    for stage in stages:
        if stage['type'] == 'Train':
            stage['ema'] = 0.1
    assert prune(write_config(tmp_path, tiny_config(stages=stages)), tmp_path / 'run') == 0
    rows = {row['name']: row for row in summary(tmp_path / 'run')['rows']}
    assert rows['finetuned']['macs'] <= 0.5 * rows['baseline']['macs']


def test_the_plan_shows_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path, tiny_config(stages=[averaged(), dict(type='Report')]))
    assert prune(config, tmp_path / 'run', '--plan') == 0
    assert 'weights averaged (0.2)' in ' '.join(capsys.readouterr().out.split())


@pytest.mark.parametrize('ema', [0, -0.1, 0.6, 1, 'much', True, float('nan')])
def test_values_that_are_not_a_share(ema: Any) -> None:
    with pytest.raises(ConfigError, match='ema='):
        Train(ema=ema)


def test_the_share_of_the_average_is_recognized() -> None:
    with pytest.raises(ConfigError, match=r'ema=0\.001'):
        Train(ema=0.999)


def test_hooks_that_average_are_left_out_and_the_plan_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hooks = [
        dict(type='EMAHook', momentum=4e-5, priority='ABOVE_NORMAL'),
        dict(type='mmengine.EMAHook'),
    ]
    config = write_config(tmp_path, tiny_config(custom_hooks=hooks))
    assert prune(config, tmp_path / 'run') == 0
    output = ' '.join(capsys.readouterr().out.split())
    assert 'custom_hooks: EMAHook is left out' in output
    assert 'ema=4e-05 of a Train stage' in output
    assert 'ema=0.0002 of a Train stage' in output
    rows = summary(tmp_path / 'run')['rows']
    result = accuracy_of(tmp_path / 'run' / 'pruned_config.py', tmp_path / 'test')
    assert result == pytest.approx(rows[-1]['accuracy'], abs=1e-3)
