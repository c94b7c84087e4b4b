"""Resuming: an interrupted run gives the same result as an uninterrupted one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from easypruner import Masks
from easypruner.engine.checkpoint import read_weights
from tests.helpers.plugin_files import write_plugin
from tests.helpers.tiny import prune, summary, tiny_config, write_config

STOP = """
from mmengine.hooks import Hook
from easypruner import hookimpl

class Stop(Hook):
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if (runner.epoch, batch_idx) == ({epoch}, {iteration}):
            raise KeyboardInterrupt

@hookimpl
def easypruner_configure_runner(runner, state):
    if state.stage.name == '{stage}':
        if {epoch} is None:
            raise KeyboardInterrupt
        runner.register_hook(Stop())
"""

LOCATIONS = {
    'in the first epoch': ('00_baseline', 0, 1),
    'after a checkpoint': ('00_baseline', 1, 0),
    'at the last iteration of a sparsity stage': ('02_mask_sparsity', 1, 2),
    'before the cut': ('03_prune', None, None),
    'while fine-tuning': ('05_finetune', 0, 2),
}
QUICK = ('after a checkpoint', 'at the last iteration of a sparsity stage', 'before the cut')


def stopped(
    folder: Path,
    stage: str,
    epoch: int | None,
    iteration: int | None,
    content: dict[str, Any] | None = None,
) -> Path:
    """Begin a run that is interrupted at a stage and return its work directory."""
    text = STOP.format(stage=stage, epoch=epoch, iteration=iteration)
    plugin = write_plugin(folder / 'plugins', 'stop.py', text)
    arguments = ['--plugins', str(plugin.parent)]
    assert prune(write_config(folder, content), folder / 'run', *arguments) == 130
    assert (folder / 'run' / stage).is_dir()
    assert not (folder / 'run' / stage / 'state.json').exists()
    return folder / 'run'


def assert_same(run: Path, other: Path) -> None:
    """Compare two runs bit for bit: weights and masks of every stage, and the summaries."""
    weights = sorted(path.relative_to(other) for path in other.rglob('weights.pth'))
    assert len(weights) == 5
    for name in (*weights, Path('pruned.pth')):
        mine, theirs = read_weights(run / name), read_weights(other / name)
        assert mine.keys() == theirs.keys()
        for key, tensor in theirs.items():
            assert torch.equal(mine[key], tensor), (name, key)
    assert Masks.load(run / 'masks.safetensors') == Masks.load(other / 'masks.safetensors')
    for file in ('architecture.json', 'pruned_config.py'):
        assert (run / file).read_text() == (other / file).read_text()
    assert results(run) == results(other)


def results(run: Path) -> dict[str, Any]:
    content = summary(run)
    assert content['seconds'].keys() >= {'baseline', 'mask_sparsity', 'finetune'}
    return {key: value for key, value in content.items() if key != 'seconds'}


@pytest.mark.parametrize(
    'location',
    [
        location if location in QUICK else pytest.param(location, marks=pytest.mark.slow)
        for location in LOCATIONS
    ],
)
def test_it_ends_bit_for_bit_as_if_it_had_not_stopped(
    location: str, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = stopped(tmp_path, *LOCATIONS[location])
    done = [path.parent.name for path in sorted(run.rglob('state.json'))]
    capsys.readouterr()
    assert prune(write_config(tmp_path), run, '--resume') == 0
    output = capsys.readouterr().out
    for name in done:
        assert f'{int(name[:2])} {name[3:]}: finished before' in output
    assert_same(run, finished)


def test_a_stopped_run_may_be_moved(finished: Path, tmp_path: Path) -> None:
    run = stopped(tmp_path / 'before', *LOCATIONS['at the last iteration of a sparsity stage'])
    moved = tmp_path / 'after' / 'elsewhere'
    moved.parent.mkdir()
    run.rename(moved)
    shutil.rmtree(tmp_path / 'before')
    assert prune(write_config(tmp_path), moved, '--resume') == 0
    assert_same(moved, finished)


def test_training_continues_from_its_last_epoch(finished: Path, tmp_path: Path) -> None:
    run = stopped(tmp_path, *LOCATIONS['after a checkpoint'])
    reported = tmp_path / 'told'
    text = f"""
from pathlib import Path
from mmengine.hooks import Hook
from easypruner import hookimpl

class Tell(Hook):
    def before_train_epoch(self, runner):
        with Path({str(reported)!r}).open('a') as file:
            file.write(f'{{Path(runner.work_dir).name}} {{runner.epoch}}\\n')

@hookimpl
def easypruner_configure_runner(runner, state):
    runner.register_hook(Tell())
"""
    plugin = write_plugin(tmp_path / 'telling', 'tell.py', text)
    arguments = ['--resume', '--plugins', str(plugin.parent)]
    assert prune(write_config(tmp_path), run, *arguments) == 0
    assert reported.read_text().splitlines() == [
        '00_baseline 1', '02_mask_sparsity 0', '02_mask_sparsity 1', '05_finetune 0'
    ]  # fmt: skip


def test_a_finished_run_has_nothing_left_to_do(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / 'run'
    shutil.copytree(finished, run)
    before = {path: path.stat().st_mtime_ns for path in run.rglob('*.pth')}
    assert prune(write_config(tmp_path), run, '--resume') == 0
    assert {path: path.stat().st_mtime_ns for path in run.rglob('*.pth')} == before
    assert_same(run, finished)


def finished_both_ways(folder: Path, content: dict[str, Any], epoch: int) -> tuple[Path, Path]:
    """Run a config without interruption, and with one in its first stage; return both runs."""
    config = write_config(folder / 'whole', content)
    assert prune(config, folder / 'whole' / 'run') == 0
    run = stopped(folder / 'stopped', '00_baseline', epoch, 0, content)
    assert prune(write_config(folder / 'stopped', content), run, '--resume') == 0
    return folder / 'whole' / 'run', run


@pytest.mark.parametrize('epoch', [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 3))])
def test_partly_accumulated_gradients_are_restored(epoch: int, tmp_path: Path) -> None:
    """Epochs of three iterations, an update every two: every other epoch ends halfway."""
    optimizer = dict(type='SGD', lr=0.1, momentum=0.9)
    pushed = dict(type='GReg', strength=1e-3, every=1)
    content = tiny_config(
        optim_wrapper=dict(optimizer=optimizer, accumulative_counts=2),
        stages=[
            dict(type='Train', name='baseline', epochs=4, row='baseline'),
            dict(type='SelectMask', source=dict(type='L1Norm', budget=dict(type='Macs', keep=0.5))),
            dict(type='Train', name='pushed', epochs=2, row='pushed', regularizer=pushed),
            dict(type='Report'),
        ],
    )
    whole, resumed = finished_both_ways(tmp_path, content, epoch)
    for name in ('00_baseline/weights.pth', 'pruned.pth'):
        one, other = read_weights(whole / name), read_weights(resumed / name)
        assert all(torch.equal(tensor, other[key]) for key, tensor in one.items()), name


UNTIL = [
    dict(type='MaskSparsity', strength=dict(until=0.01)),
    dict(type='GroupLasso', strength=dict(until=0.01), masked=True),
]


@pytest.mark.parametrize('epoch', [3, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    'push',
    [UNTIL[0], pytest.param(UNTIL[1], marks=pytest.mark.slow)],
    ids=['MaskSparsity', 'GroupLasso'],
)
def test_strengths_that_have_risen_are_restored(
    push: dict[str, Any], epoch: int, tmp_path: Path
) -> None:
    content = tiny_config(
        stages=[
            dict(type='SelectMask', source=dict(type='L1Norm', budget=dict(type='Macs', keep=0.5))),
            dict(type='Train', name='pushed', epochs=8, row='pushed', regularizer=push),
            dict(type='Prune', row='pruned'),
            dict(type='Report'),
        ]
    )
    whole, resumed = tmp_path / 'whole' / 'run', tmp_path / 'stopped' / 'run'
    assert prune(write_config(tmp_path / 'whole', content), whole) == 0
    stopped(tmp_path / 'stopped', '01_pushed', epoch, 1, content)
    assert prune(write_config(tmp_path / 'stopped', content), resumed, '--resume') == 0
    for name in ('01_pushed/weights.pth', 'pruned.pth'):
        one, other = read_weights(whole / name), read_weights(resumed / name)
        assert all(torch.equal(tensor, other[key]) for key, tensor in one.items()), name
    mine, theirs = summary(resumed), summary(whole)
    assert [mine[key] for key in ('rows', 'warnings')] == [theirs['rows'], theirs['warnings']]


def test_updates_of_a_regularizer_are_counted_from_before(tmp_path: Path) -> None:
    reported = tmp_path / 'told'
    text = f"""
from easypruner import Regularizer, hookimpl

class Counting(Regularizer):
    def penalty(self, graph, masks):
        raise AssertionError

    def add_gradient(self, graph, masks, progress):
        with open({str(reported)!r}, 'a') as file:
            print(progress.update, file=file)

@hookimpl
def easypruner_components():
    return [Counting]
"""
    for folder in ('plugins', 'counting'):
        plugin = write_plugin(tmp_path / folder, 'counting.py', text)
    regularizer = dict(type='Counting', strength=1.0)
    content = tiny_config(
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1), accumulative_counts=2),
        stages=[
            dict(type='Train', name='baseline', epochs=3, row='x', regularizer=regularizer),
            dict(type='Report'),
        ],
    )
    run = stopped(tmp_path, '00_baseline', 1, 0, content)
    arguments = ['--resume', '--plugins', str(plugin.parent)]
    assert prune(write_config(tmp_path, content), run, *arguments) == 0
    # Nine iterations are four updates of two, and a last one. The update of the epoch of the stop
    # is repeated. Both plans try the regularizer once.
    assert reported.read_text().split() == ['0', '0', '1', '0', '1', '2', '3', '4']


def test_an_incomplete_checkpoint_is_ignored(tmp_path: Path) -> None:
    content = tiny_config(
        stages=[dict(type='Train', name='baseline', epochs=3, row='x'), dict(type='Report')]
    )
    assert prune(write_config(tmp_path, content), tmp_path / 'whole') == 0
    run = stopped(tmp_path, '00_baseline', 2, 0, content)
    newest = run / '00_baseline' / 'epoch_2.pth'
    newest.write_bytes(newest.read_bytes()[:-1000])
    (run / '00_baseline' / 'last_checkpoint').write_text('')
    assert prune(write_config(tmp_path, content), run, '--resume') == 0
    one, other = (read_weights(folder / 'pruned.pth') for folder in (tmp_path / 'whole', run))
    assert all(torch.equal(tensor, other[key]) for key, tensor in one.items())


@pytest.mark.in_ci
def test_a_warning_about_a_weak_penalty_is_that_of_the_start(tmp_path: Path) -> None:
    weak = dict(type='GlobalSparsity', strength=dict(reach=0.7))
    content = tiny_config(
        stages=[
            dict(type='Train', name='baseline', epochs=2, row='baseline', regularizer=weak),
            dict(
                type='SelectMask', source=dict(type='BNScale', budget=dict(type='Macs', keep=0.5))
            ),
            dict(type='Prune'),
            dict(type='Report'),
        ]
    )
    whole, resumed = finished_both_ways(tmp_path, content, 1)
    assert len(summary(whole)['warnings']) == 1
    assert summary(resumed)['warnings'] == summary(whole)['warnings']


class TestRefusal:
    @pytest.mark.parametrize(
        ('changes', 'key'),
        [
            (dict(optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.2))), 'optim_wrapper'),
            (dict(stages=[dict(type='Train')]), 'stages'),
        ],
    )
    def test_a_changed_config_names_what_changed(
        self,
        changes: dict[str, Any],
        key: str,
        finished: Path,
        tmp_path: Path,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        before = sorted(finished.rglob('*'))
        config = write_config(tmp_path, tiny_config(**changes))
        assert prune(config, finished, '--resume') == 2
        message = capfd.readouterr().err
        assert 'changed' in message
        assert key in message
        assert sorted(finished.rglob('*')) == before

    def test_one_deep_change_is_named_by_its_path(
        self, finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        arguments = ['--resume', '--cfg-options', 'stages.2.epochs=9']
        assert prune(write_config(tmp_path), finished, *arguments) == 2
        assert 'stages[2].epochs' in capfd.readouterr().err

    def test_another_seed(
        self, finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert prune(write_config(tmp_path), finished, '--resume', '--seed', '1') == 2
        assert 'seed' in capfd.readouterr().err

    def test_nothing_to_resume(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        assert prune(write_config(tmp_path), tmp_path / 'none', '--resume') == 2
        assert 'no run to resume' in capfd.readouterr().err

    @pytest.mark.parametrize('text', ['', '{', '[]', '{"stage": 3}', 'null'])
    def test_a_damaged_state(
        self, text: str, finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        run = tmp_path / 'run'
        shutil.copytree(finished, run)
        (run / '02_mask_sparsity' / 'state.json').write_text(text)
        assert prune(write_config(tmp_path), run, '--resume') == 2
        message = capfd.readouterr().err
        assert message.startswith('easypruner: ')
        assert '02_mask_sparsity' in message


def test_stages_after_a_repeated_stage_are_repeated(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / 'run'
    shutil.copytree(finished, run)
    shutil.rmtree(run / '02_mask_sparsity')
    assert prune(write_config(tmp_path), run, '--resume') == 0
    output = capsys.readouterr().out
    assert '1 select_mask: finished before' in output
    assert output.count('finished before') == 2
    assert_same(run, finished)
