"""A distributed run that loses a process stops, and continues to the same result."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.disturbed import results
from tests.helpers.plugin_files import write_plugin
from tests.helpers.tiny import torchrun, write_config

pytestmark = pytest.mark.slow

KILL = """
import os
import signal
from mmengine.hooks import Hook
from easypruner import hookimpl

class Kill(Hook):
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if (runner.epoch, batch_idx, os.environ['RANK']) == (1, 0, '1'):
            os.kill(os.getpid(), signal.SIGKILL)

@hookimpl
def easypruner_configure_runner(runner, state):
    if state.stage.name == '02_mask_sparsity':
        runner.register_hook(Kill())
"""


def test_a_run_whose_process_was_killed_continues_to_the_same_result(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    whole, run = tmp_path / 'whole', tmp_path / 'run'
    assert torchrun(config, whole).returncode == 0
    plugin = write_plugin(tmp_path / 'plugins', 'kill.py', KILL)
    killed = torchrun(config, run, '--plugins', str(plugin.parent))
    assert killed.returncode not in (0, 2)
    assert (run / '02_mask_sparsity').is_dir()
    assert not (run / '03_prune').exists()
    resumed = torchrun(config, run, '--resume')
    assert resumed.returncode == 0, resumed.stderr
    assert results(run) == results(whole)
