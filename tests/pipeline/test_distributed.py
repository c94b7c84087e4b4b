"""Two processes over gloo: one run, one set of files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from easypruner.engine.checkpoint import read_weights
from tests.helpers.plugin_files import write_plugin
from tests.helpers.tiny import VAL_IMAGES, summary, tiny_config, torchrun, write_config

ROWS = ['baseline', 'sparse', 'pruned', 'calibrated', 'finetuned']

STOP = """
from mmengine.hooks import Hook
from easypruner import hookimpl

class Stop(Hook):
    def before_train_epoch(self, runner):
        if runner.epoch == 1:
            raise KeyboardInterrupt

@hookimpl
def easypruner_configure_runner(runner, state):
    if state.stage.name == '02_mask_sparsity':
        runner.register_hook(Stop())
"""

TELL = """
from pathlib import Path
import torch
from mmengine.hooks import Hook
from easypruner import hookimpl

class Tell(Hook):
    def after_train(self, runner):
        model = runner.model.module
        digest = sum(float(p.double().abs().sum()) for p in model.parameters())
        file = Path(runner.work_dir) / f'rank{{runner.rank}}.txt'
        images = len(runner.train_dataloader) * runner.train_dataloader.batch_size
        file.write_text(f'{{digest!r}} {{images}}')

@hookimpl
def easypruner_configure_runner(runner, state):
    runner.register_hook(Tell())
"""


@pytest.mark.slow
class TestTwoProcesses:
    def test_they_share_one_run(self, tmp_path: Path) -> None:
        run = tmp_path / 'run'
        plugin = write_plugin(tmp_path / 'plugins', 'tell.py', TELL.format())
        done = torchrun(write_config(tmp_path), run, '--plugins', str(plugin.parent))
        assert done.returncode == 0, done.stderr
        assert done.stdout.count('Written') == 1
        content = summary(run)
        assert [row['name'] for row in content['rows']] == ROWS
        for row in content['rows']:
            correct = row['accuracy'] * VAL_IMAGES / 100
            assert correct == pytest.approx(round(correct), abs=1e-3)
        for stage in ('00_baseline', '02_mask_sparsity', '05_finetune'):
            first, second = ((run / stage / f'rank{r}.txt').read_text() for r in range(2))
            assert first == second
        assert len(list(run.rglob('state.json'))) == 7
        config = Config.fromfile(run / 'pruned_config.py')
        config.work_dir = str(tmp_path / 'evaluation')
        accuracy = Runner.from_cfg(config).test()['accuracy/top1']
        assert accuracy == content['rows'][-1]['accuracy']

    def test_a_stopped_run_continues_bit_for_bit(self, tmp_path: Path) -> None:
        config = write_config(tmp_path)
        plugin = write_plugin(tmp_path / 'plugins', 'stop.py', STOP)
        stopped = torchrun(config, tmp_path / 'run', '--plugins', str(plugin.parent))
        assert stopped.returncode != 0
        assert not (tmp_path / 'run' / '02_mask_sparsity' / 'state.json').exists()
        resumed = torchrun(config, tmp_path / 'run', '--resume')
        assert resumed.returncode == 0, resumed.stderr
        whole = torchrun(config, tmp_path / 'whole')
        assert whole.returncode == 0, whole.stderr
        mine, theirs = (read_weights(tmp_path / run / 'pruned.pth') for run in ('run', 'whole'))
        assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
        assert summary(tmp_path / 'run')['rows'] == summary(tmp_path / 'whole')['rows']

    def test_a_mistake_is_reported_once_and_ends_both(self, tmp_path: Path) -> None:
        config = write_config(tmp_path, tiny_config(optim_wraper=dict(type='OptimWrapper')))
        done = torchrun(config, tmp_path / 'run')
        assert done.returncode != 0
        assert re.findall('easypruner: .*', done.stderr) == [
            "easypruner: unknown key 'optim_wraper'; did you mean 'optim_wrapper'?"
        ]
        assert 'exitcode  : 2' in done.stderr
        assert not (tmp_path / 'run').exists()


THREADS = """
import atexit
from pathlib import Path
from mmengine.dist import get_rank
from easypruner import hookimpl

def write(rank):
    tasks = Path('/proc/self/task').iterdir()
    names = [(task / 'comm').read_text().strip() for task in tasks]
    Path({folder!r}, f'threads_{{rank}}').write_text(' '.join(names))

@hookimpl
def easypruner_configure_runner(runner, state):
    if not hasattr(atexit, 'easypruner_test'):
        atexit.easypruner_test = True
        atexit.register(write, get_rank())
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path('/proc/self/task').is_dir(), reason='threads are listed by Linux only')
def test_no_thread_of_the_process_group_outlives_it(tmp_path: Path) -> None:
    stages = [dict(type='Train', name='baseline', epochs=1, row='baseline'), dict(type='Report')]
    config = write_config(tmp_path, tiny_config(stages=stages))
    text = THREADS.format(folder=str(tmp_path))
    plugins = write_plugin(tmp_path / 'plugins', 'threads.py', text).parent
    run = torchrun(config, tmp_path / 'run', '--plugins', str(plugins))
    assert run.returncode == 0, run.stderr
    for rank in range(2):
        names = (tmp_path / f'threads_{rank}').read_text()
        assert names
        assert 'gloo' not in names
