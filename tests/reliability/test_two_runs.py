"""Two runs that start at once do not mix."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.disturbed import results
from tests.helpers.tiny import TOOL
from tests.helpers.zygote import Zygote
from tests.reliability.conftest import Whole

pytestmark = pytest.mark.slow


def test_of_two_seeds_in_one_folder_one_is_refused(
    zygote: Zygote, whole: Whole, tmp_path: Path
) -> None:
    run = tmp_path / 'run'
    command = [sys.executable, str(TOOL), str(whole.config), '--work-dir', str(run), '--seed']
    # The run alone has one thread as well; with more, sums are rounded differently.
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    processes = [subprocess.Popen([*command, seed], **pipes) for seed in ('0', '1')]
    outputs = [process.communicate(timeout=240)[0] for process in processes]
    codes = [process.returncode for process in processes]
    assert sorted(codes) == [0, 2], outputs
    refused, winner = codes.index(2), codes.index(0)
    assert 'Traceback' not in outputs[refused]
    assert 'in use by process' in outputs[refused] or 'belongs to' in outputs[refused]
    alone = tmp_path / 'alone'
    command = ['prune', whole.config, '--work-dir', alone, '--seed', winner]
    assert zygote.run(command, alone).code == 0
    assert results(run) == results(alone)
