"""One run in a folder; what a run may find there when it resumes, and what it repairs."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from easypruner.base import files
from easypruner.base.json_fields import with_hash
from easypruner.base.lock import LOCK, FolderLock
from easypruner.cli.main import main
from easypruner.engine.checkpoint import read_weights
from easypruner.report.result import RunResult
from tests.helpers.plugin_files import write_plugin
from tests.helpers.tiny import prune, summary, tiny_config, write_config

SHORT = [
    dict(type='Train', name='baseline', epochs=3, row='baseline'),
    dict(type='Report'),
]
HOOK = """
import os, signal
from pathlib import Path
from mmengine.hooks import Hook
from easypruner import hookimpl

class Act(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if (runner.epoch, batch_idx) == (1, 0):
            {act}

@hookimpl
def easypruner_configure_runner(runner, state):
    runner.register_hook(Act())
"""


@pytest.fixture(scope='module')
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work directory of a short run; not to be changed."""
    folder = tmp_path_factory.mktemp('short')
    assert prune(short_config(folder), folder / 'run') == 0
    return folder / 'run'


def short_config(folder: Path, **changes: Any) -> Path:
    return write_config(folder, tiny_config(stages=SHORT, **changes))


def acting(folder: Path, act: str, *arguments: str) -> int:
    """Start a short run that does something in its second epoch; return its exit code."""
    plugin = write_plugin(folder / 'plugins', 'act.py', HOOK.format(act=act))
    config = short_config(folder)
    return prune(config, folder / 'run', '--plugins', str(plugin.parent), *arguments)


def one_message(capfd: pytest.CaptureFixture[str]) -> str:
    message = capfd.readouterr().err
    assert message.startswith('easypruner: ')
    assert message.count('\n') == 1
    return message


def assert_same_weights(run: Path, other: Path) -> None:
    mine, theirs = read_weights(run / 'pruned.pth'), read_weights(other / 'pruned.pth')
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


class TestOwner:
    @pytest.mark.parametrize('option', [[], ['--resume'], ['--overwrite']])
    def test_a_folder_in_use_is_refused(
        self, option: list[str], short: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        run = tmp_path / 'run'
        shutil.copytree(short, run)
        lock = FolderLock(run)
        lock.acquire()
        before = sorted(run.rglob('*'))
        assert prune(short_config(tmp_path), run, *option) == 2
        message = one_message(capfd)
        assert 'in use by process' in message
        assert str(os.getpid()) in message
        assert sorted(run.rglob('*')) == before
        lock.release()

    @pytest.mark.slow
    def test_two_runs_started_at_once(self, tmp_path: Path) -> None:
        """The second starts in the middle of the first."""
        config = str(short_config(tmp_path))
        code = f'import easypruner.cli.main as m; print("CODE", m.main(["prune", {config!r}, '
        code += f'"--work-dir", {str(tmp_path / "run")!r}, "--seed", "1"]))'
        write = f'Path({str(tmp_path / "code")!r}).write_text(subprocess.run('
        write += f'[sys.executable, "-c", {code!r}], capture_output=True, text=True).stdout)'
        assert acting(tmp_path, f'import subprocess, sys; {write}') == 0
        assert (tmp_path / 'code').read_text().strip() == 'CODE 2'
        assert summary(tmp_path / 'run')['seed'] == 0

    def test_nothing_is_left_of_the_lock(self, short: Path) -> None:
        assert not (short / LOCK).exists()

    @pytest.mark.parametrize('act', ['path.unlink()', 'path.write_text("{}")'])
    def test_a_run_whose_lock_was_lost_stops(
        self, act: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / 'run' / LOCK
        assert acting(tmp_path, f'path = Path({str(path)!r}); {act}') == 2
        assert 'does not belong to this run any more' in one_message(capfd)
        assert not list((tmp_path / 'run').rglob('state.json'))

    def test_a_sign_of_life_notices_a_lost_lock(
        self,
        request: pytest.FixtureRequest,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        """The thread interrupts the training, which would otherwise wait for ever.

        Shells start jobs in the background without Ctrl-C.
        """
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
        monkeypatch.setattr('easypruner.base.lock.BEAT', 2.0)
        path, waited = tmp_path / 'run' / LOCK, tmp_path / 'waited'
        wait = f'threading.Event().wait(60); Path({str(waited)!r}).touch()'
        act = f'Path({str(path)!r}).unlink(); import threading; {wait}'
        assert acting(tmp_path, act) == 2
        assert not waited.exists()
        assert 'has vanished' in one_message(capfd)

    def test_the_default_folder_has_the_seed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert main(['prune', str(short_config(tmp_path)), '--seed', '7', '--plan']) == 0
        output = capsys.readouterr().out.replace('\n', '')
        assert str(tmp_path / 'work_dirs' / 'tiny_seed7') in output


class TestLauncher:
    def test_torchrun_needs_its_launcher(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        for name, value in dict(RANK='0', LOCAL_RANK='0', WORLD_SIZE='2').items():
            monkeypatch.setenv(name, value)
        assert prune(short_config(tmp_path), tmp_path / 'run') == 2
        assert 'add --launcher pytorch' in one_message(capfd)
        assert not (tmp_path / 'run').exists()

    def test_the_launcher_needs_torchrun(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert prune(short_config(tmp_path), tmp_path / 'run', '--launcher', 'pytorch') == 2
        message = one_message(capfd)
        assert 'torchrun' in message and 'RANK' in message
        assert not (tmp_path / 'run').exists()


class TestResume:
    @pytest.mark.parametrize('name', ['summary.json', 'pruned.pth', 'pruned_config.py'])
    @pytest.mark.parametrize('damage', ['missing', 'damaged'])
    def test_results_are_written_again(
        self, name: str, damage: str, short: Path, tmp_path: Path
    ) -> None:
        run = tmp_path / 'run'
        shutil.copytree(short, run)
        whole = (run / name).read_bytes()
        if damage == 'missing':
            (run / name).unlink()
        else:
            (run / name).write_bytes(whole[:-9] + b'\0' + whole[-8:])
        assert prune(short_config(tmp_path), run, '--resume') == 0
        edited = damage == 'damaged' and name.endswith('.py')
        assert ((run / name).read_bytes() == whole) != edited
        assert RunResult.load(run).rows == RunResult.load(short).rows

    @pytest.mark.parametrize(
        ('changes', 'said'),
        [
            (dict(log_level='WARNING'), 'log_level'),
            (dict(val_evaluator=dict(type='Accuracy', topk=(1, 5))), 'val_evaluator.topk'),
            (dict(default_hooks=dict(logger=dict(type='LoggerHook', interval=3))), 'default_hooks'),
            (dict(custom_hooks=[dict(type='ProfilerHook')]), 'custom_hooks'),
        ],
    )
    def test_what_does_not_matter_may_change(
        self,
        changes: dict[str, Any],
        said: str,
        short: Path,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        run = tmp_path / 'run'
        shutil.copytree(short, run)
        shutil.rmtree(run / '01_report')
        assert prune(short_config(tmp_path, **changes), run, '--resume') == 0
        (line,) = [s for s in capsys.readouterr().out.splitlines() if 'changed since' in s]
        assert said in line
        assert_same_weights(run, short)

    @pytest.mark.parametrize('option', ['train_dataloader.batch_size=2', 'stages.0.epochs=4'])
    def test_anything_else_is_refused(
        self, option: str, short: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        arguments = ['--resume', '--cfg-options', option, 'train_dataloader.num_workers=1']
        assert prune(short_config(tmp_path), short, *arguments) == 2
        message = one_message(capfd)
        assert option.partition('=')[0].replace('.0', '[0]') in message
        assert 'num_workers' not in message

    @pytest.mark.parametrize(
        ('key', 'value', 'said'),
        [
            ('processes', 2, 'processes (was 2, is 1)'),
            ('versions', {'torch': '1.0'}, 'versions.torch (was 1.0, is'),
        ],
    )
    def test_other_processes_and_versions_are_refused(
        self,
        key: str,
        value: Any,
        said: str,
        short: Path,
        tmp_path: Path,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        run = tmp_path / 'run'
        shutil.copytree(short, run)
        content = json.loads((run / 'run.json').read_text())
        content[key] = {**content[key], **value} if isinstance(value, dict) else value
        del content['hash']
        files.write_json(run / 'run.json', with_hash(content))
        assert prune(short_config(tmp_path), run, '--resume') == 2
        assert said in one_message(capfd)

    def test_another_number_of_threads_is_said(
        self, short: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run, threads = tmp_path / 'run', torch.get_num_threads()
        shutil.copytree(short, run)
        torch.set_num_threads(threads + 1)
        try:
            assert prune(short_config(tmp_path), run, '--resume') == 0
        finally:
            torch.set_num_threads(threads)
        said = ' '.join(capsys.readouterr().out.split())
        assert f'threads was {threads}, is {threads + 1}; sums are rounded differently' in said
        assert prune(short_config(tmp_path), run, '--resume') == 0
        assert 'rounded' not in capsys.readouterr().out


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


DAMAGES = [cut_off, flipped, Path.unlink]


class TestDamage:
    @pytest.mark.parametrize('damage', DAMAGES)
    def test_weights_that_a_stage_needs(
        self,
        damage: Callable[[Path], None],
        short: Path,
        tmp_path: Path,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        run = tmp_path / 'run'
        shutil.copytree(short, run)
        shutil.rmtree(run / '01_report')
        damage(run / '00_baseline' / 'weights.pth')
        assert prune(short_config(tmp_path), run, '--resume') == 2
        message = one_message(capfd)
        assert 'weights.pth' in message
        assert "delete the folder '00_baseline'" in message
        shutil.rmtree(run / '00_baseline')
        assert prune(short_config(tmp_path), run, '--resume') == 0
        assert_same_weights(run, short)

    @pytest.mark.parametrize('damage', DAMAGES)
    def test_initial_weights_are_made_again(
        self, damage: Callable[[Path], None], short: Path, tmp_path: Path
    ) -> None:
        run = tmp_path / 'run'
        shutil.copytree(short, run)
        shutil.rmtree(run / '00_baseline')
        damage(run / 'initial.pth')
        assert prune(short_config(tmp_path), run, '--resume') == 0
        assert_same_weights(run, short)

    @pytest.mark.parametrize('damage', DAMAGES)
    def test_a_training_checkpoint_is_not_used(
        self, damage: Callable[[Path], None], short: Path, tmp_path: Path
    ) -> None:
        run = tmp_path / 'run'
        shutil.copytree(short, run)
        shutil.rmtree(run / '01_report')
        (run / '00_baseline' / 'state.json').unlink()
        damage(run / '00_baseline' / 'epoch_3.pth')
        assert prune(short_config(tmp_path), run, '--resume') == 0
        assert_same_weights(run, short)

    @pytest.mark.parametrize('name', ['run.json', '00_baseline/state.json'])
    def test_an_edited_number(
        self, name: str, short: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        run = tmp_path / 'run'
        shutil.copytree(short, run)
        text = (run / name).read_text()
        digit = next(i for i in range(len(text) // 2, len(text)) if text[i].isdigit())
        (run / name).write_text(f'{text[:digit]}{(int(text[digit]) + 1) % 10}{text[digit + 1 :]}')
        assert prune(short_config(tmp_path), run, '--resume') == 2
        assert name in one_message(capfd)


class TestPlan:
    """A plan says why the run that follows could not use its work directory, and changes it not."""

    @pytest.mark.parametrize(
        ('changes', 'arguments', 'note'),
        [
            ({}, [], 'continue its run with --resume'),
            ({}, ['--overwrite'], ''),
            ({}, ['--resume'], ''),
            ({'randomness': {'seed': 5}}, ['--resume'], 'the config has changed'),
        ],
    )
    def test_it_notes_what_is_in_the_way(
        self, short: Path, tmp_path: Path, changes: Any, arguments: list[str], note: str,
        capfd: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        before = sorted((file, file.stat().st_mtime_ns) for file in short.rglob('*'))
        assert prune(short_config(tmp_path, **changes), short, '--plan', *arguments) == 0
        printed = ' '.join(capfd.readouterr().out.split())
        assert ('note: ' in printed) == bool(note) and note in printed, printed
        assert sorted((file, file.stat().st_mtime_ns) for file in short.rglob('*')) == before

    def test_nothing_to_resume_is_an_error(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        config = short_config(tmp_path)
        assert prune(config, tmp_path / 'none', '--plan', '--resume') == 2
        assert 'there is no run to resume' in one_message(capfd)


class TestDisk:
    @pytest.mark.parametrize('number', [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
    @pytest.mark.parametrize('write', [0, 1, 3, 5, 7])
    def test_it_fails_at_a_write(
        self,
        write: int,
        number: int,
        short: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        left = [write]

        def fail(path: Path) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(number, os.strerror(number))

        monkeypatch.setattr(files, 'flush_file', fail)
        assert prune(short_config(tmp_path), tmp_path / 'run') == 2
        message = one_message(capfd)
        assert 'disk' in message or 'file system' in message
        monkeypatch.undo()
        resume = ['--resume'] if (tmp_path / 'run').exists() else []
        assert bool(resume) == ('--resume' in message)
        assert prune(short_config(tmp_path), tmp_path / 'run', *resume) == 0
        assert_same_weights(tmp_path / 'run', short)

    def test_the_folder_vanishes(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        act = f'import shutil; shutil.rmtree({str(tmp_path / "run")!r})'
        assert acting(tmp_path, act) == 2
        assert 'vanished' in one_message(capfd)


class TestSigterm:
    def test_it_ends_after_a_checkpoint_of_the_iteration(
        self, short: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert acting(tmp_path, 'os.kill(os.getpid(), signal.SIGTERM)') == 130
        message = one_message(capfd)
        assert message.startswith('easypruner: interrupted; continue with: easypruner prune ')
        assert message.endswith(' --resume\n')
        stage = tmp_path / 'run' / '00_baseline'
        assert len(list(stage.glob('stopped_at_*.pth'))) == 1
        assert not (stage / 'epoch_2.pth').exists()
        assert prune(short_config(tmp_path), tmp_path / 'run', '--resume') == 0
        assert_same_weights(tmp_path / 'run', short)

    def test_without_grace_it_ends_at_once(self, tmp_path: Path) -> None:
        act = 'os.kill(os.getpid(), signal.SIGTERM)'
        assert acting(tmp_path, act, '--grace', '0') == 130
        assert not (tmp_path / 'run' / '00_baseline' / 'epoch_2.pth').exists()

    def test_an_interrupt_before_the_run_has_written_anything(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr('easypruner.pipeline.run.check', interrupt)
        assert prune(short_config(tmp_path), tmp_path / 'run') == 130
        assert 'start again: easypruner prune' in one_message(capfd)
        assert not (tmp_path / 'run').exists()
