"""SIGTERM in an epoch: the stage saves where it stands, and continues there to the same result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from easypruner.engine.checkpoint import read_weights
from tests.helpers.plugin_files import write_plugin
from tests.helpers.tiny import BATCH, TRAIN_IMAGES, prune, summary, tiny_config, write_config

ITERATIONS = TRAIN_IMAGES // BATCH

NOISE_AND_SIGTERM = """
import os, random, signal
from pathlib import Path
import numpy as np
import torch
from mmengine.hooks import Hook
from easypruner import hookimpl

class Noise(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        with Path({log!r}).open('a') as file:
            print(Path(runner.work_dir).name, runner.iter, file=file)
        noise = torch.randn(()) + random.random() + float(np.random.normal())
        with torch.no_grad():
            next(runner.model.parameters()).add_(1e-3 * noise)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if Path(runner.work_dir).name == {stage!r} and runner.iter == {iteration}:
            os.kill(os.getpid(), signal.SIGTERM)

@hookimpl
def easypruner_configure_runner(runner, state):
    if runner._train_dataloader is not None:
        runner.register_hook(Noise())
"""

PUSH = dict(type='MaskSparsity', strength=dict(until=0.01))


def content_of(**changes: Any) -> dict[str, Any]:
    return tiny_config(
        stages=[
            dict(type='SelectMask', source=dict(type='L1Norm', budget=dict(type='Macs', keep=0.5))),
            dict(type='Train', name='pushed', epochs=3, row='pushed', regularizer=PUSH, ema=0.1),
            dict(type='Prune'),
            dict(type='Report'),
        ],
        **changes,
    )


def run(folder: Path, content: dict[str, Any], stop_at: int, *arguments: str) -> tuple[int, Path]:
    """Run a config that gets SIGTERM at an iteration; return the exit code and the log."""
    log = folder / 'log'
    text = NOISE_AND_SIGTERM.format(log=str(log), stage='01_pushed', iteration=stop_at)
    plugins = write_plugin(folder / 'plugins', 'noise.py', text).parent
    config = write_config(folder, content)
    return prune(config, folder / 'run', '--plugins', str(plugins), *arguments), log


def workers(number: int) -> dict[str, Any]:
    loader = dict(tiny_config()['train_dataloader'])
    return dict(train_dataloader={**loader, 'num_workers': number})


CHANGES: dict[str, dict[str, Any]] = {
    'plain': {},
    'accumulation': dict(
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9), accumulative_counts=2)
    ),
    'worker processes': workers(2),
}


@pytest.mark.parametrize(
    'changes',
    [
        'plain',
        *(pytest.param(name, marks=pytest.mark.slow) for name in CHANGES if name != 'plain'),
    ],
)
def test_it_continues_in_the_epoch_to_the_same_result(changes: str, tmp_path: Path) -> None:
    content = content_of(**CHANGES[changes])
    assert run(tmp_path / 'whole', content, stop_at=-1)[0] == 0
    stopped = tmp_path / 'stopped'
    # Once in the first epoch, and once in the last.
    assert run(stopped, content, 1)[0] == 130
    assert run(stopped, content, 2 * ITERATIONS, '--resume')[0] == 130
    code, log = run(stopped, content, -1, '--resume')
    assert code == 0
    trained = [line for line in log.read_text().splitlines() if line.startswith('01_pushed')]
    assert trained == [f'01_pushed {number}' for number in range(3 * ITERATIONS)]
    for name in ('01_pushed/weights.pth', 'pruned.pth'):
        one, other = (read_weights(tmp_path / f / 'run' / name) for f in ('whole', 'stopped'))
        assert all(torch.equal(tensor, other[key]) for key, tensor in one.items()), name
    mine, theirs = summary(stopped / 'run'), summary(tmp_path / 'whole' / 'run')
    assert [mine[key] for key in ('rows', 'warnings')] == [theirs['rows'], theirs['warnings']]
    assert not list(stopped.rglob('stopped_at_*'))


def test_without_a_grace_period_the_last_epoch_counts(tmp_path: Path) -> None:
    code, _ = run(tmp_path, content_of(), ITERATIONS + 1, '--grace', '0')
    assert code == 130
    names = {path.name for path in (tmp_path / 'run' / '01_pushed').glob('*.pth')}
    assert names == {'epoch_1.pth'}
