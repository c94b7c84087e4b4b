"""The options that OpenMMLab's training tools have, and the scripts that start processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from easypruner.base.launchers import set_environment
from easypruner.cli.main import main
from easypruner.engine.checkpoint import read_weights
from easypruner.errors import ConfigError
from tests.helpers.plugin_files import write_plugin
from tests.helpers.tiny import BATCH, prune, summary, tiny_config, write_config

TOOLS = Path(__file__).parents[2] / 'tools'
VARIABLES = ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT')
SLURM = {
    'SLURM_PROCID': '3', 'SLURM_NTASKS': '4', 'SLURM_LOCALID': '1', 'SLURM_JOB_ID': '20007',
    'SLURM_STEP_NODELIST': 'gpu[003-005,9],cpu1',
}  # fmt: skip
OPEN_MPI = {
    'OMPI_COMM_WORLD_RANK': '2', 'OMPI_COMM_WORLD_SIZE': '3', 'OMPI_COMM_WORLD_LOCAL_RANK': '0',
}  # fmt: skip

SRUN = """#!/usr/bin/env python3
import os, subprocess, sys
tasks = next(int(a.partition('=')[2]) for a in sys.argv if a.startswith('--ntasks='))
command = sys.argv[sys.argv.index('python'):]
print(*sys.argv[1:], file=open({log!r}, 'w'))
started = [
    subprocess.Popen(
        [sys.executable, *command[1:]],
        env=os.environ | dict(
            SLURM_PROCID=str(rank), SLURM_NTASKS=str(tasks), SLURM_LOCALID=str(rank),
            SLURM_NODELIST='127.0.0.1', SLURM_JOB_ID={job!r},
        ),
    )
    for rank in range(tasks)
]
sys.exit(max(process.wait() for process in started))
"""


def short_config(folder: Path, **changes: Any) -> Path:
    stages = [dict(type='Train', name='baseline', epochs=2, row='baseline'), dict(type='Report')]
    return write_config(folder, tiny_config(stages=stages, **changes))


@pytest.fixture
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Remove what launchers set, and what the test sets afterwards."""
    before = dict(os.environ)
    for name in (*VARIABLES, *SLURM, *OPEN_MPI):
        monkeypatch.delenv(name, raising=False)
    yield
    for name in set(os.environ) - set(before):
        del os.environ[name]


class TestResume:
    def test_a_path_is_the_run_to_continue(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        config, run = short_config(tmp_path), tmp_path / 'elsewhere'
        assert prune(config, run) == 0
        capsys.readouterr()
        assert main(['prune', str(config), '--resume', str(run)]) == 0
        assert 'finished before' in capsys.readouterr().out
        assert prune(config, run, '--resume', 'auto') == 0

    def test_a_finished_run_prints_its_table_again(
        self, finished_table: tuple[Path, Path, str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        config, run, table = finished_table
        capsys.readouterr()
        assert prune(config, run, '--resume') == 0
        assert table in capsys.readouterr().out

    def test_a_checkpoint_is_not_a_run(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        config = short_config(tmp_path)
        checkpoint = tmp_path / 'epoch_1.pth'
        checkpoint.write_bytes(b'')
        assert main(['prune', str(config), '--resume', str(checkpoint)]) == 2
        assert 'expected the work directory of a run' in capfd.readouterr().err

    def test_two_different_folders_are_a_mistake(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        config = short_config(tmp_path)
        assert prune(config, tmp_path / 'one', '--resume', str(tmp_path / 'other')) == 2
        assert 'leave one of them out' in capfd.readouterr().err


@pytest.fixture
def finished_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[Path, Path, str]:
    """Return a config, its finished run, and the line of its table."""
    config, run = short_config(tmp_path), tmp_path / 'run'
    assert prune(config, run) == 0
    output = capsys.readouterr().out
    (line,) = [text for text in output.splitlines() if text.startswith(' baseline ')]
    return config, run, line


def test_the_work_directory_of_the_config_is_used(tmp_path: Path) -> None:
    config = short_config(tmp_path, work_dir=str(tmp_path / 'mine'))
    assert main(['prune', str(config)]) == 0
    assert (tmp_path / 'mine' / 'summary.json').is_file()


RECORD = """
import json
from pathlib import Path
from mmengine.hooks import Hook
from easypruner import hookimpl

class Record(Hook):
    priority = 'LOWEST'

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        wrapper = runner.optim_wrapper
        Path({log!r}).write_text(json.dumps(dict(
            lr=wrapper.optimizer.param_groups[0]['initial_lr'],
            wrapper=type(wrapper).__name__,
            dtype=str(outputs['loss'].dtype),
            pinned=runner.train_dataloader.pin_memory,
            persistent=runner.val_dataloader.persistent_workers,
            validates=runner.train_loop.val_begin <= runner.max_epochs,
        )))

@hookimpl
def easypruner_configure_runner(runner, state):
    runner.register_hook(Record())
"""


def recorded(folder: Path, *options: str, **changes: Any) -> dict[str, Any]:
    """Run a config with options; return what a hook sees in its training."""
    log = folder / 'log.json'
    plugins = write_plugin(folder / 'plugins', 'record.py', RECORD.format(log=str(log))).parent
    config = short_config(folder, **changes)
    assert prune(config, folder / 'run', '--plugins', str(plugins), *options) == 0
    content: dict[str, Any] = json.loads(log.read_text())
    return content


class TestChangesOfTheConfig:
    def test_amp_is_bfloat16_on_the_cpu(self, tmp_path: Path) -> None:
        seen = recorded(tmp_path / 'amp', '--amp')
        plain = recorded(tmp_path / 'plain')
        if not torch.cuda.is_available():
            assert seen['wrapper'] == 'CpuAmpOptimWrapper'
        assert plain['wrapper'] == 'OptimWrapper'
        one, other = (read_weights(tmp_path / f / 'run' / 'pruned.pth') for f in ('amp', 'plain'))
        # Half precision rounds to three digits, so the weights are close, but not equal.
        name = 'head.fc.weight'
        assert not torch.equal(one[name], other[name])
        assert torch.allclose(one[name], other[name], atol=0.1)

    def test_amp_in_a_config_with_another_type_is_refused_on_the_cpu(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        wrapper = dict(type='AmpOptimWrapper', dtype='float16', optimizer=dict(type='SGD', lr=0.1))
        config = short_config(tmp_path, optim_wrapper=wrapper)
        if torch.cuda.is_available():
            pytest.skip('this machine has a GPU')
        assert prune(config, tmp_path / 'run') == 2
        message = capfd.readouterr().err
        assert 'float16' in message
        assert "dtype='bfloat16'" in message

    def test_the_learning_rate_is_scaled_to_the_batch_size(self, tmp_path: Path) -> None:
        scale = dict(auto_scale_lr=dict(base_batch_size=2 * BATCH))
        assert recorded(tmp_path / 'a', '--auto-scale-lr', **scale)['lr'] == pytest.approx(0.05)
        assert recorded(tmp_path / 'b', **scale)['lr'] == pytest.approx(0.1)

    def test_the_reach_knows_the_scaled_learning_rate(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        content = tiny_config(auto_scale_lr=dict(base_batch_size=2 * BATCH))
        content['stages'][2]['regularizer']['strength'] = 1.0
        config, reaches = write_config(tmp_path, content), []
        for options in ([], ['--auto-scale-lr']):
            assert prune(config, tmp_path / 'run', '--plan', *options) == 0
            lines = capsys.readouterr().out.splitlines()
            (line,) = [t for t in lines if 'with MaskSparsity' in t]
            reaches.append(float(line.split('MaskSparsity')[1].split()[0]))
        assert reaches[1] == pytest.approx(reaches[0] / 2, rel=0.02)

    def test_scaling_needs_the_batch_size_that_the_rate_is_meant_for(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert prune(short_config(tmp_path), tmp_path / 'run', '--auto-scale-lr') == 2
        assert 'base_batch_size' in capfd.readouterr().err

    def test_loaders_and_validation(self, tmp_path: Path) -> None:
        train_cfg = dict(max_epochs=2, val_interval=1)
        loader = {**tiny_config()['val_dataloader'], 'num_workers': 1, 'persistent_workers': True}
        changes = dict(train_cfg=train_cfg, val_dataloader=loader)
        plain = recorded(tmp_path / 'plain', **changes)
        assert plain['persistent']
        assert plain['validates']
        options = ['--no-validate', '--no-pin-memory', '--no-persistent-workers']
        seen = recorded(tmp_path / 'options', *options, **changes)
        assert not (seen['pinned'] or seen['persistent'] or seen['validates'])
        rows = [summary(tmp_path / folder / 'run')['rows'] for folder in ('plain', 'options')]
        assert rows[0] == rows[1]

    def test_a_run_may_be_resumed_without_validation(self, tmp_path: Path) -> None:
        train_cfg = dict(max_epochs=2, val_interval=1)
        config = short_config(tmp_path, train_cfg=train_cfg)
        assert prune(config, tmp_path / 'run') == 0
        assert prune(config, tmp_path / 'run', '--resume', '--no-validate') == 0


class TestProgressLines:
    def test_each_epoch_has_a_line_with_loss_accuracy_and_time(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        config = short_config(tmp_path, train_cfg=dict(max_epochs=2, val_interval=1))
        assert prune(config, tmp_path / 'run') == 0
        lines = [t for t in capsys.readouterr().out.splitlines() if 'baseline: epoch' in t]
        assert len(lines) == 2
        for number, line in enumerate(lines, 1):
            assert line.startswith(f'  baseline: epoch {number}/2, loss ')
            assert ' %' in line
        assert lines[0].endswith(' left')
        row = summary(tmp_path / 'run')['rows'][0]
        assert f'accuracy {row["accuracy"]:.2f} %' in lines[1]


@pytest.mark.usefixtures('no_launcher')
class TestLaunchers:
    def test_slurm(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in SLURM.items():
            monkeypatch.setenv(name, value)
        set_environment('slurm')
        expected = dict(
            RANK='3', WORLD_SIZE='4', LOCAL_RANK='1', MASTER_ADDR='gpu003', MASTER_PORT='29507'
        )
        assert {name: os.environ[name] for name in VARIABLES} == expected

    @pytest.mark.parametrize(
        ('nodes', 'first'),
        [('a', 'a'), ('a,b', 'a'), ('n[1-4]', 'n1'), ('r1n[08,11]', 'r1n08'), ('a,n[1-2]', 'a')],
    )
    def test_the_first_machine(
        self, nodes: str, first: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv('PATH', '')
        for name, value in {**SLURM, 'SLURM_STEP_NODELIST': nodes}.items():
            monkeypatch.setenv(name, value)
        set_environment('slurm')
        assert os.environ['MASTER_ADDR'] == first

    def test_mpi(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in OPEN_MPI.items():
            monkeypatch.setenv(name, value)
        set_environment('mpi')
        found = [os.environ[name] for name in VARIABLES]
        assert found == ['2', '3', '0', '127.0.0.1', '29500']

    def test_mpi_on_several_machines_needs_an_address(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, value in {**OPEN_MPI, 'OMPI_COMM_WORLD_LOCAL_SIZE': '2'}.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(ConfigError, match=r'2 of 3 processes .* MASTER_ADDR'):
            set_environment('mpi')
        monkeypatch.setenv('MASTER_ADDR', 'first')
        set_environment('mpi')
        assert os.environ['MASTER_ADDR'] == 'first'

    @pytest.mark.parametrize('launcher', ['slurm', 'mpi', 'pytorch'])
    def test_a_launcher_that_has_not_started_the_process(
        self, launcher: Any, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(ConfigError, match=f'--launcher {launcher} needs the variables'):
            set_environment(launcher)

    def test_the_local_rank_may_be_an_argument(self, tmp_path: Path) -> None:
        config = short_config(tmp_path)
        assert prune(config, tmp_path / 'run', '--plan', '--local-rank', '0') == 0
        assert os.environ['LOCAL_RANK'] == '0'
        assert prune(config, tmp_path / 'run', '--plan', '--local_rank=0') == 0


class TestScripts:
    @pytest.mark.parametrize('script', ['dist_prune.sh', 'slurm_prune.sh'])
    def test_they_say_what_is_missing(self, script: str) -> None:
        bash = shutil.which('bash')
        assert bash is not None
        run = subprocess.run(
            [bash, str(TOOLS / script)], capture_output=True, text=True, check=False
        )
        assert run.returncode != 0
        assert 'expected' in run.stderr
        assert script in run.stderr

    @pytest.mark.slow
    def test_two_processes_of_torchrun(self, tmp_path: Path) -> None:
        self._run('dist_prune.sh', tmp_path, str(short_config(tmp_path)), '2', '--work-dir',
                  str(tmp_path / 'run'))  # fmt: skip
        assert (tmp_path / 'run' / 'summary.json').is_file()

    @pytest.mark.slow
    def test_two_processes_of_slurm(self, tmp_path: Path) -> None:
        log = tmp_path / 'log'
        srun = tmp_path / 'bin' / 'srun'
        srun.parent.mkdir()
        srun.write_text(SRUN.format(log=str(log), job=str(os.getpid())))
        srun.chmod(0o755)
        config, run = short_config(tmp_path), tmp_path / 'run'
        self._run('slurm_prune.sh', tmp_path, 'queue', 'job', str(config), str(run), '--seed', '5')
        assert summary(run)['seed'] == 5
        said = log.read_text()
        assert '--partition=queue --job-name=job' in said
        assert '--exclusive --mem=4G' in said

    @staticmethod
    def _run(script: str, folder: Path, *arguments: str) -> None:
        path = f'{folder / "bin"}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}'
        environment = {
            **os.environ, 'PATH': path + os.environ['PATH'], 'OMP_NUM_THREADS': '1', 'GPUS': '2',
            'SRUN_ARGS': '--exclusive --mem=4G', 'CUDA_VISIBLE_DEVICES': '',
            'PORT': str(20_000 + os.getpid() % 9_000),
        }  # fmt: skip
        run = subprocess.run(
            [str(TOOLS / script), *arguments],
            capture_output=True, text=True, check=False, timeout=300, env=environment,
        )  # fmt: skip
        assert run.returncode == 0, run.stderr[-2000:]
