"""Comparisons of artificial runs: lines, differences, tables."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import pluggy
import pytest
from rich.console import Console

import easypruner
from easypruner import hookspecs
from easypruner.errors import EasyPrunerError
from easypruner.report.comparison import compare
from easypruner.report.comparison_report import compare_runs, make_comparison_tables
from easypruner.report.fairness import list_differences
from easypruner.report.result import Artifact, BudgetResult, RunResult
from tests.helpers.run_results import make_rows, save_run, save_seeds


def test_nothing_is_overwritten_without_the_option(tmp_path: Path) -> None:
    run, out = save_run(tmp_path, 'a'), tmp_path / 'out'
    out.mkdir()
    (out / 'notes.txt').write_text('mine')
    with pytest.raises(EasyPrunerError, match='not empty'):
        compare_runs([run], out)
    assert [path.name for path in out.iterdir()] == ['notes.txt']
    compare_runs([run], out, overwrite=True)
    assert (out / 'notes.txt').read_text() == 'mine'
    with pytest.raises(EasyPrunerError, match='is a file'):
        compare_runs([run], out / 'notes.txt', overwrite=True)


def test_all_bad_runs_are_reported_at_once_and_nothing_is_written(tmp_path: Path) -> None:
    good, unfinished, damaged = (save_run(tmp_path, name) for name in ('a', 'b', 'c'))
    (unfinished / 'summary.json').unlink()
    (damaged / 'summary.json').write_text('{"rows": 3}')
    missing, out = tmp_path / 'missing', tmp_path / 'out'
    with pytest.raises(EasyPrunerError) as caught:
        compare_runs([good, unfinished, missing, damaged], out)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    for line, folder in zip(lines, (unfinished, missing, damaged), strict=True):
        assert str(folder) in line
    assert not out.exists()


def test_no_run_is_an_error() -> None:
    with pytest.raises(EasyPrunerError, match='nothing to compare'):
        compare([])


def test_run_given_twice_counts_once(tmp_path: Path) -> None:
    a, b = save_run(tmp_path, 'a'), save_run(tmp_path, 'b')
    comparison = compare([a, b, a, a / '..' / 'a'])
    assert [run.work_dir for run in comparison.runs] == [a, b]


def test_lines_of_one_name_are_distinguished(tmp_path: Path) -> None:
    runs = [save_run(tmp_path, folder, name='same', config_hash=folder) for folder in 'ab']
    names = [line.name for line in compare(runs).lines]
    assert names == [f'same ({run})' for run in runs]


def test_order_of_seeds_does_not_matter(tmp_path: Path) -> None:
    runs = save_seeds(tmp_path, 'a', [90.0, 91.0, 93.0])
    assert compare(runs).lines == compare(runs[::-1]).lines


def test_plugins_get_the_runs_in_the_order_given(tmp_path: Path) -> None:
    a, b = save_seeds(tmp_path, 'a', [90.0, 91.0]), save_seeds(tmp_path, 'b', [90.0, 91.0])
    seen = []

    class Plugin:
        @easypruner.hookimpl
        def easypruner_report(self, runs: Sequence[RunResult]) -> Iterable[Artifact]:
            seen.extend(run.work_dir for run in runs)
            return [Artifact('Latency', ('run', 'ms'), (('a', '3.25'),))]

    manager = pluggy.PluginManager(hookspecs.GROUP)
    manager.add_hookspecs(hookspecs)
    manager.register(Plugin())
    given = [b[1], a[1], b[0], a[0]]
    out = io.StringIO()
    compare_runs(given, tmp_path / 'out', manager=manager, console=Console(file=out))
    assert seen == given
    assert '3.25' in out.getvalue()


def test_equal_lines_need_no_notes(tmp_path: Path) -> None:
    runs = [run for name in 'ab' for run in save_seeds(tmp_path, name, [97.0, 97.5])]
    assert list_differences(compare(runs)) == ()


BOTH = (BudgetResult('Macs', 0.5, 0.4), BudgetResult('Params', 0.6, 0.6))


@pytest.mark.parametrize(
    ('changes', 'note'),
    [
        ({'parts': {'data': 'cccc', 'schedule': 'bbbb'}}, 'differ in their data: aaaa (a); cccc'),
        ({'parts': {'data': 'aaaa'}}, 'differ in their schedule: bbbb (a); unknown (b)'),
        ({'budget': BudgetResult('Macs', 0.6, 0.6)}, 'budgets differ: Macs 0.5 (a); Macs 0.6 (b)'),
        (
            {'budget': BudgetResult('Macs + Params', 0.5, 0.4, parts=BOTH)},
            'budgets differ: Macs 0.5 (a); Macs 0.5 and Params 0.6 (b)',
        ),
        ({'budget': None}, 'budgets differ: Macs 0.5 (a); no budget (b)'),
        ({'versions': {'torch': '2.9'}}, 'versions of torch differ: 2.14.1 (a); 2.9 (b)'),
        ({'seed': 7}, 'seeds differ: 0 (a); 7 (b)'),
        ({'rows': make_rows(baseline=98.5)}, 'baselines differ by up to 0.50 points'),
        (
            {'rows': make_rows(macs=24_480_000)},
            'MACs differ by up to 10.0 percentage points',
        ),
        ({'rows': make_rows()[:-1]}, 'end at different points: finetuned (a); pruned (b)'),
        ({'rows': make_rows()[2:]}, 'unpruned networks differ'),
    ],
)
def test_differences_are_noted(tmp_path: Path, changes: dict[str, object], note: str) -> None:
    runs = [save_run(tmp_path, 'a'), save_run(tmp_path, 'b', **changes)]
    notes = list_differences(compare(runs))
    assert any(note in line for line in notes), notes
    assert any('only one seed: a, b' in line for line in notes)


def test_repeated_seed_is_noted(tmp_path: Path) -> None:
    runs = [save_run(tmp_path, name, name='a', config_hash='a') for name in ('x', 'y')]
    assert any('several runs with seed 0' in line for line in list_differences(compare(runs)))


def test_narrow_output_splits_the_table(tmp_path: Path) -> None:
    comparison = compare(save_seeds(tmp_path, 'a', [97.0, 98.0]))
    (whole,) = make_comparison_tables(comparison, 200)
    accuracy, cost = make_comparison_tables(comparison, 80)
    columns = [column.header for column in (*accuracy.columns, *cost.columns)]
    assert {str(c) for c in columns} == {str(column.header) for column in whole.columns}


COMMAND = """
import sys
from pathlib import Path
from easypruner.report.comparison_report import compare_runs
compare_runs(sys.argv[2:], Path(sys.argv[1]))
assert 'torch' not in sys.modules, 'comparing needs no torch, which takes seconds to import'
"""


def test_command_runs_without_torch_and_without_unicode(tmp_path: Path) -> None:
    runs = save_seeds(tmp_path, 'naïve', [97.0, 97.5])
    done = subprocess.run(
        [sys.executable, '-c', COMMAND, tmp_path / 'out', *runs],
        env={**os.environ, 'PYTHONIOENCODING': 'ascii'},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert 'na\\xefve' in done.stdout


def save_config(run: Path, **config: object) -> Path:
    """Write the config of a run that was saved."""
    (run / 'run.json').write_text(json.dumps({'config': config}))
    return run


def test_different_parts_of_configs_are_named_by_their_settings(tmp_path: Path) -> None:
    a = save_config(
        save_run(tmp_path, 'a', parts={'data': 'aaaa', 'schedule': 'bbbb'}),
        train_dataloader={'batch_size': 8, 'shuffle': True}, train_cfg={'max_epochs': 3},
    )  # fmt: skip
    b = save_config(
        save_run(tmp_path, 'b', parts={'data': 'cccc', 'schedule': 'dddd'}, epochs=7),
        train_dataloader={'batch_size': 4}, train_cfg={'max_epochs': 5},
        optim_wrapper={'optimizer': {'lr': 0.5}},
    )  # fmt: skip
    found = [note for note in list_differences(compare([a, b])) if 'configs' in note]
    assert found == [
        'the configs differ in their data: train_dataloader.batch_size: 8 (a); 4 (b)',
        'the configs differ in their data: train_dataloader.shuffle: True (a); not set (b)',
        'the configs differ in their schedule: optim_wrapper.optimizer.lr: not set (a); 0.5 (b)',
    ]


def test_a_folder_of_runs_names_them(tmp_path: Path) -> None:
    save_run(tmp_path / 'study' / 'runs', 'a')
    for folder in (tmp_path / 'study', tmp_path / 'study' / 'runs'):
        with pytest.raises(EasyPrunerError, match='has runs, and is not the folder of one') as told:
            compare([folder])
        assert str(told.value).endswith(f'{tmp_path / "study" / "runs"}/*')


def test_epochs_before_new_weights_do_not_count(tmp_path: Path) -> None:
    runs = [
        save_config(
            save_run(tmp_path, name, parts={'schedule': name}, **epochs), model={'depth': 8}
        )
        for name, epochs in (
            ('a', {'epochs': 26, 'trained_epochs': 26}),
            ('renewed', {'epochs': 34, 'trained_epochs': 26}),
            ('longer', {'epochs': 30}),
        )
    ]
    [found] = [note for note in list_differences(compare(runs)) if 'schedule' in note]
    assert found.endswith('epochs of all stages: 26 (a, renewed); 30 (longer)')


def test_few_of_many_different_settings_are_named(tmp_path: Path) -> None:
    runs = [
        save_config(
            save_run(tmp_path, name, parts={'model': name * 4}),
            model={f'width_{n}': name * 300 for n in range(50)},
        )
        for name in 'ab'
    ]
    found = [note for note in list_differences(compare(runs)) if 'model' in note]
    assert len(found) < 10 and f'{50 - len(found) + 1} more settings' in found[-1]
    assert max(map(len, found)) < 400
