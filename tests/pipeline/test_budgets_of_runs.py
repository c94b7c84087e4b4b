"""Budgets in runs: several limits, and steps that know where the run began."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from easypruner.report.result import RunResult
from tests.helpers.tiny import prune, tiny_config, write_config

STEPS = 3
MACS, PARAMS = dict(type='Macs', keep=0.5), dict(type='Params', keep=0.7)


def stages(budget: Any) -> list[dict[str, Any]]:
    """Return a run without training that removes its channels in equal steps."""
    series: list[dict[str, Any]] = [dict(type='Train', epochs=1, row='baseline')]
    for step in range(STEPS):
        part = (step / STEPS, (step + 1) / STEPS)
        series += [
            dict(type='SelectMask', source=dict(type='L1Norm', budget=budget), part=part),
            dict(type='Prune', row='pruned' if step == STEPS - 1 else None),
        ]
    return [*series, dict(type='Report')]


@pytest.fixture(scope='module')
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('steps')
    config = write_config(folder, tiny_config(stages=stages([MACS, PARAMS])))
    assert prune(config, folder / 'run') == 0
    return folder / 'run'


def test_the_summary_has_every_limit_of_the_whole_way(run: Path) -> None:
    result = RunResult.load(run)
    assert result.budget is not None
    macs, params = result.budget.each
    first, last = result.baseline, result.final
    assert (macs.kind, macs.asked, params.kind, params.asked) == ('Macs', 0.5, 'Params', 0.7)
    assert macs.delivered == pytest.approx(last.macs / first.macs)
    assert params.delivered == pytest.approx(last.params / first.params)
    assert 0.4 < macs.delivered <= 0.5 and params.delivered <= 0.7
    assert result.budget.kind == 'Macs + Params'


def test_steps_come_evenly(run: Path) -> None:
    states = [json.loads(file.read_text()) for file in sorted(run.glob('*_select_mask/state.json'))]
    left = [state['budget']['parts'][0]['delivered'] for state in states]
    assert left == pytest.approx(
        [5 / 6, 4 / 6, 3 / 6], abs=0.08
    )  # of so small a network, a unit is much
    assert states[0]['reference'] == states[-1]['reference']
    assert states[0]['reference'][0] == RunResult.load(run).baseline.macs


def test_a_run_that_was_stopped_between_two_steps_continues_the_same(
    run: Path, tmp_path: Path
) -> None:
    again = tmp_path / 'run'
    shutil.copytree(run, again)
    for folder in sorted(again.glob('0[4-9]_*')):
        shutil.rmtree(folder)
    config = write_config(tmp_path, tiny_config(stages=stages([MACS, PARAMS])))
    assert prune(config, again, '--resume') == 0
    assert RunResult.load(again).budget == RunResult.load(run).budget


def test_an_infeasible_end_is_reported_before_the_run_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, tiny_config(stages=stages(dict(type='Macs', keep=0.001))))
    assert prune(config, tmp_path / 'run') == 2
    assert 'is the lowest possible' in capsys.readouterr().err
    assert not list((tmp_path / 'run').glob('00_*/weights.pth'))
