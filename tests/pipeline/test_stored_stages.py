"""Runs that share finished stages: what is the same is linked, and what may differ is run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from easypruner.cli.main import main
from easypruner.engine.checkpoint import read_weights
from tests.helpers.tiny import prune, summary, tiny_config, write_config

PLUGIN = '''"""A plugin that does nothing."""
from easypruner import hookimpl

@hookimpl
def easypruner_configure_runner(runner, state):
    pass
'''
BUDGET = dict(type='Macs', keep=0.5)


def short_config(source: str = 'L1Norm', **changes: Any) -> dict[str, Any]:
    """Return a config of one epoch."""
    stages = [
        dict(type='Train', name='baseline', epochs=1, row='baseline'),
        dict(type='SelectMask', source=dict(type=source, budget=BUDGET)),
        dict(type='Prune'),
        dict(type='Report', runtimes=[]),
    ]
    return tiny_config(**{'stages': stages, **changes})


def run(folder: Path, name: str, content: dict[str, Any], *arguments: str) -> Path:
    config = write_config(folder / name, content, name)
    work_dir = folder / name / 'run'
    assert prune(config, work_dir, '--store', str(folder / 'store'), *arguments) == 0
    return work_dir


def linked(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the stages that were linked since the last call."""
    lines = capsys.readouterr().out.splitlines()
    return [line.split()[1].rstrip(':') for line in lines if line.endswith('from the store')]


@pytest.mark.in_ci
def test_stages_with_the_same_past_are_linked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run(tmp_path, 'first', short_config())
    assert linked(capsys) == []
    again = run(tmp_path, 'again', short_config())
    assert linked(capsys) == ['baseline', 'select_mask', 'prune']
    assert summary(again)['rows'] == summary(first)['rows']
    mine, theirs = read_weights(again / 'pruned.pth'), read_weights(first / 'pruned.pth')
    assert all(mine[name].equal(tensor) for name, tensor in theirs.items())
    # What a run keeps does not depend on the store.
    assert main(['store', 'prune', '--store', str(tmp_path / 'store'), '--days', '0']) == 0
    assert 'removed' in capsys.readouterr().out
    assert prune(tmp_path / 'again' / 'again.py', again, '--resume') == 0
    assert main(['store', 'list', '--store', str(tmp_path / 'store')]) == 0
    assert '0 stages' in capsys.readouterr().out


@pytest.mark.slow
def test_other_methods_share_the_baseline_and_other_seeds_do_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run(tmp_path, 'first', short_config())
    capsys.readouterr()
    other = run(tmp_path, 'other', short_config('Random'))
    assert linked(capsys) == ['baseline']
    assert summary(other)['seconds']['baseline'] == summary(first)['seconds']['baseline']
    run(tmp_path, 'seeded', short_config(), '--seed', '1')
    assert linked(capsys) == []


@pytest.mark.slow
@pytest.mark.parametrize('changed', ['data', 'checkpoint', 'evaluator', 'plugin', 'damage'])
def test_what_may_differ_is_run(
    changed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Changes that the fingerprints for resuming do not see."""
    plugin = tmp_path / 'plugins' / 'mine.py'
    plugin.parent.mkdir()
    plugin.write_text(PLUGIN)
    content = short_config()
    plugins = ('--plugins', str(plugin.parent))
    start = run(tmp_path, 'start', content, *plugins)
    weights = tmp_path / 'weights.pth'
    weights.write_bytes((start / '00_baseline' / 'weights.pth').read_bytes())
    content['stages'][0] = dict(type='Evaluate', checkpoint=str(weights), name='baseline')
    run(tmp_path, 'first', content, *plugins)
    run(tmp_path, 'second', content, *plugins)
    assert 'baseline' in linked(capsys)
    if changed == 'data':
        content['val_dataloader']['dataset']['indices'] = list(range(5))
    elif changed == 'checkpoint':
        weights.write_bytes((start / 'initial.pth').read_bytes())
    elif changed == 'evaluator':
        content['val_evaluator'] = [content['val_evaluator']]
    elif changed == 'plugin':
        plugin.write_text(f'{PLUGIN}    # It has changed.\n')
    else:
        [entry] = [
            file.parent
            for file in (tmp_path / 'store').glob('*/*/entry.json')
            if json.loads(file.read_text())['about']['config'] == 'first'
            and json.loads(file.read_text())['about']['stage'] == 'baseline'
        ]
        (entry / 'files' / 'weights.pth').unlink()
        (entry / 'files' / 'weights.pth').write_bytes(b'other')
    run(tmp_path, 'third', content, *plugins)
    assert 'baseline' not in linked(capsys)
