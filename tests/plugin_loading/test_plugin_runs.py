"""Plugins of every origin are used in a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from easypruner.graph.masks import Masks
from tests.helpers.plugin_files import write_distribution, write_plugin, write_source
from tests.helpers.tiny import prune, tiny_config, write_config

STAGES = [
    {'type': 'Train', 'epochs': 1, 'row': 'baseline'},
    {
        'type': 'SelectMask',
        'source': {'type': 'RunSource', 'budget': {'type': 'Macs', 'keep': 0.5}},
    },
    {'type': 'Prune'},
    {'type': 'Report'},
]
Ways = Callable[[Path, pytest.MonkeyPatch], tuple[list[str], dict[str, object]]]


def folder(tmp_path: Path, _: pytest.MonkeyPatch) -> tuple[list[str], dict[str, object]]:
    write_source(tmp_path / 'plugins', 'RunSource')
    return ['--plugins', str(tmp_path / 'plugins')], {}


def entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[str], dict[str, object]]:
    write_source(tmp_path / 'site', 'RunSource', 'run_by_entry_point.py')
    write_distribution(tmp_path / 'site', 'run_thing', 'run_by_entry_point')
    monkeypatch.syspath_prepend(tmp_path / 'site')
    return [], {}


def custom_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[str], dict[str, object]]:
    write_source(tmp_path / 'site', 'RunSource', 'run_by_custom_imports.py')
    monkeypatch.syspath_prepend(tmp_path / 'site')
    return [], {'custom_imports': {'imports': ['run_by_custom_imports']}}


@pytest.mark.parametrize('way', [folder, entry_point, custom_imports])
def test_a_source_is_found_and_built_and_chooses(
    way: Ways, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options, changes = way(tmp_path, monkeypatch)
    config = write_config(tmp_path, tiny_config(stages=STAGES, **changes))
    assert prune(config, tmp_path / 'run', *options) == 0
    masks = Masks.load(tmp_path / 'run' / 'masks.safetensors')
    assert masks.removed_units > 0
    for mask in masks.values():  # the score of a unit is its index, so the last units are kept
        assert mask.tolist() == sorted(mask.tolist())


HOOKED = """
from pathlib import Path
from easypruner import hookimpl
from easypruner.report.result import Artifact

@hookimpl
def easypruner_configure_runner(runner, state):
    with (Path(__file__).parent / 'runners.txt').open('a') as file:
        print(type(runner).__mro__[-2].__name__, type(state).__name__, file=file)

@hookimpl
def easypruner_report(runs):
    rows = tuple((row.name,) for run in runs for row in run.rows)
    return [Artifact('Rows', columns=('rows of a plugin',), rows=rows)]
"""


def test_runners_and_reports_pass_through_the_hooks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_plugin(tmp_path / 'plugins', 'hooked.py', HOOKED)
    write_source(tmp_path / 'plugins', 'RunSource')
    config = write_config(tmp_path, tiny_config(stages=STAGES))
    assert prune(config, tmp_path / 'run', '--plugins', str(tmp_path / 'plugins')) == 0
    runners = (tmp_path / 'plugins' / 'runners.txt').read_text().splitlines()
    assert runners
    assert set(runners) == {'Runner PruningState'}
    assert 'rows of a plugin' in capsys.readouterr().out


def test_a_typo_in_the_plugin_s_name_is_reported_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_source(tmp_path / 'plugins', 'RunSource')
    source = {'type': 'RunSuorce', 'budget': {'type': 'Macs', 'kepe': 0.5}}
    config = write_config(tmp_path, tiny_config(stages=[{'type': 'SelectMask', 'source': source}]))
    assert prune(config, tmp_path / 'run', '--plugins', str(tmp_path / 'plugins')) == 2
    error = capsys.readouterr().err
    assert "unknown mask source 'RunSuorce'; did you mean 'RunSource'?" in error
    assert not (tmp_path / 'run').exists()


def test_a_report_of_another_kind_is_reported_with_its_plugin(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reports = 'from easypruner import hookimpl\n@hookimpl\ndef easypruner_report(runs): return '
    folder = tmp_path / 'plugins'
    write_plugin(folder, 'a_none.py', f'{reports}None')
    write_plugin(folder, 'b_wrong.py', f'{reports}["a table"]')
    write_plugin(folder, 'c_right.py', f'{reports}[]')
    write_source(folder, 'RunSource')
    config = write_config(tmp_path, tiny_config(stages=STAGES))
    assert prune(config, tmp_path / 'run', '--plugins', str(folder)) == 2
    error = capsys.readouterr().err
    assert 'easypruner_report returned a list [a str], expected a list of' in error
    assert f'b_wrong, {folder / "b_wrong.py"}' in error
    assert 'a_none' not in error and 'c_right' not in error
