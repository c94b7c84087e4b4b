"""Runs of stages in seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from easypruner.testing import check_stage, component
from tests.helpers.plugin_files import HALTING_STAGE, write_plugin


def test_a_stage_that_stops_the_run_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_plugin(tmp_path / 'plugins', 'halting.py', HALTING_STAGE)
    with pytest.raises(AssertionError, match=r'with code 2: this far and no further$'):
        check_stage({'type': 'Halting'}, tmp_path / 'one', plugins=tmp_path / 'plugins')
    assert 'easypruner: this far and no further' in capsys.readouterr().err
    with pytest.raises(AssertionError, match=r"code 2: stages\[2\]: unknown stage 'Haltin'; did"):
        check_stage({'type': 'Haltin'}, tmp_path / 'two', plugins=[str(tmp_path / 'plugins')])


def test_folders_may_be_texts(tmp_path: Path) -> None:
    write_plugin(tmp_path / 'plugins', 'halting.py', HALTING_STAGE)
    stage = {'type': 'Halting', 'halts': False}
    summary = check_stage(stage, str(tmp_path / 'run'), plugins=str(tmp_path / 'plugins'))
    assert [row['name'] for row in summary['rows']] == ['baseline', 'pruned']
    assert component('Halting', str(tmp_path / 'plugins')).__name__ == 'Halting'
