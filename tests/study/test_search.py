"""Searches of a study: one trial after the other, recorded, and repeatable after any end."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from easypruner.cli.main import main
from easypruner.errors import Interrupted
from easypruner.report import study_report
from easypruner.study import executors
from tests.helpers.run_results import make_result
from tests.helpers.tiny import tiny_config, write_config

pytest.importorskip('optuna', reason="optuna is not installed: pip install 'easypruner[optuna]'")

KEY = 'optim_wrapper.optimizer.lr'


class Ended(executors.Running):
    """A run that has ended at once."""

    def __init__(self, problem: str = '') -> None:
        self.problem = problem

    def outcome(self) -> str:
        return self.problem

    def stop(self) -> None:
        raise AssertionError


class Told(executors.LocalExecutor):
    """Runs nothing: the result of a run depends on its learning rate alone."""

    started: list[str]
    killed_at = failed_at = 10**6

    def start(self, file: Path, name: str) -> executors.Running:
        content = json.loads(file.read_bytes())
        if len(self.started) == self.killed_at:
            raise Interrupted('--resume')
        self.started.append(name)
        if len(self.started) == self.failed_at:
            return Ended('out of memory')
        run = content['run']
        rate = {**run['options'], **run['swept']}.get(KEY, 0.05)
        best = -3.0 if run['budget']['keep'] == 0.5 else -0.5
        [row, *_] = make_result(Path('x')).rows
        result = make_result(
            Path(content['work_dir']),
            name=run['label'],
            seed=run['seed'],
            rows=(row, *[_row(row, 90 - abs(math.log10(rate) - best))]),
        )
        result.work_dir.mkdir(parents=True)
        result.save()
        return Ended()


def _row(row: Any, accuracy: float) -> Any:
    return type(row)('pruned', accuracy, row.macs // 2, row.params // 2, row.bytes // 2)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> type[Told]:
    monkeypatch.setattr(executors, 'LocalExecutor', Told)
    # The pictures take longer than all the rest.
    monkeypatch.setattr(study_report, 'write', lambda *_, **__: None)
    monkeypatch.setattr(Told, 'started', [], raising=False)
    for name in ('killed_at', 'failed_at'):
        monkeypatch.setattr(Told, name, 10**6)
    return Told


def write_study(folder: Path, trials: int = 4) -> Path:
    stages: list[Mapping[str, Any]] = [
        dict(type='SelectMask', source=dict(type='L1Norm', budget=dict(type='Macs', keep=0.5))),
        dict(type='Prune'),
        dict(type='Report', runtimes=[]),
    ]
    config = str(write_config(folder, tiny_config(stages=stages), 'l1'))
    path = folder / 'mine.py'
    path.write_text(
        'random = scratch = False\nbudgets = [0.5, 0.6]\n'
        f'search = tune({KEY!r}, between(1e-4, 1.0, log=True), trials={trials})\n'
        f'grid_of = tune({KEY!r}, [0.01, 0.02, 0.03, 0.04])\n'
        f'configs = dict(a=dict(config={config!r}, tune=search),\n'
        f'    b=dict(config={config!r}, tune=grid_of))\n'
        'del search, grid_of\n'
    )
    return path


def study(path: Path, folder: Path, *arguments: str) -> int:
    store = ['--store', str(folder.parent / 'store')]
    return main(['study', str(path), '--out', str(folder), *store, *arguments])


def tuned(folder: Path) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = json.loads((folder / 'study.json').read_text())['tuned']
    return sorted(content, key=lambda entry: (entry['method'], entry['budget']['keep']))


@pytest.mark.in_ci
def test_a_killed_search_ends_like_an_undisturbed_one(
    tmp_path: Path, told: type[Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_study(tmp_path)
    assert study(path, tmp_path / 'whole') == 0
    whole, started = tuned(tmp_path / 'whole'), list(told.started)
    assert [(e['method'], e['sampler']) for e in whole] == [
        *[('a', 'tpe, seed 0')] * 2,
        *[('b', None)] * 2,
    ]
    for entry in whole:
        assert len(entry['trials']) == 4
        assert entry['value'] == max(entry['trials'], key=lambda trial: trial[1])[0]
    # Each budget is searched by itself: the same first trials, and other ones after them.
    first, second = ([value for value, _ in entry['trials']] for entry in whole[:2])
    assert first[0] == second[0] and first != second
    trials = json.loads((tmp_path / 'whole' / 'search' / 'study.json').read_text())['runs']
    assert [run['status'] for run in trials] == ['finished'] * 8

    monkeypatch.setattr(Told, 'started', [])
    folder, arguments = tmp_path / 'killed', ()
    for killed_at in (9, 14, 10**6):
        monkeypatch.setattr(Told, 'killed_at', killed_at)
        returned = study(path, folder, *arguments)
        assert (returned == 0) == (killed_at == 10**6)
        arguments = ('--resume',)
    assert tuned(folder) == whole
    assert sorted(Told.started) == sorted(started)


@pytest.mark.slow
def test_a_trial_that_failed_is_named_and_run_again(
    tmp_path: Path, told: type[Told], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path, folder = write_study(tmp_path), tmp_path / 'out'
    monkeypatch.setattr(Told, 'failed_at', 11)
    assert study(path, folder) == 2
    captured = capsys.readouterr()
    assert 'search: 8 trials' in captured.out
    assert '1 of 6 runs failed' in captured.err and 'out of memory' in captured.err
    monkeypatch.setattr(Told, 'failed_at', 10**6)
    assert study(path, folder, '--resume') == 0
    assert study(path, tmp_path / 'whole') == 0
    assert tuned(folder) == tuned(tmp_path / 'whole')


@pytest.mark.slow
def test_parts_of_a_study_are_searched_one_after_the_other(
    tmp_path: Path, told: type[Told]
) -> None:
    path, folder = write_study(tmp_path), tmp_path / 'out'
    assert study(path, folder, '--only', 'a', '--budgets', '0.6') == 0
    assert [(e['method'], e['budget']['keep']) for e in tuned(folder)] == [('a', 0.6)]
    assert study(path, folder, '--resume', '--only', 'a', '--budgets', '0.5') == 0
    runs = json.loads((folder / 'search' / 'study.json').read_text())['runs']
    assert [run['budget']['keep'] for run in runs].count(0.6) == 4 and len(runs) == 8
    assert study(path, tmp_path / 'whole', '--only', 'a') == 0
    assert tuned(folder) == tuned(tmp_path / 'whole')


def test_methods_need_the_same_number_of_trials(
    tmp_path: Path, told: type[Told], capsys: pytest.CaptureFixture[str]
) -> None:
    assert study(write_study(tmp_path, trials=5), tmp_path / 'out') == 2
    assert 'the numbers of trials differ: a 5, b 4' in capsys.readouterr().err


def test_both_ends_of_a_range_are_checked_before_anything_starts(
    tmp_path: Path, told: type[Told], capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_study(tmp_path)
    text = path.read_text().replace(
        f'tune({KEY!r}, between(1e-4, 1.0, log=True)', 'tune(KEEP, KEPT'
    )
    kept = "KEPT, KEEP = between(0.5, 1.5), 'stages.0.source.budget.keep'\n"
    path.write_text(f'{kept}{text}\ndel KEPT, KEEP, budgets\n')
    assert study(path, tmp_path / 'out') == 2
    assert 'a, keep=1.5: stages[0].source.budget: keep=1.5' in capsys.readouterr().err
    assert not told.started
