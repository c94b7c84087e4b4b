"""summary.json: it is read back as written, and damage is reported with the field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from easypruner.errors import EasyPrunerError
from easypruner.report.result import Artifact, BudgetResult, Row, RunResult, ScaleStats
from tests.helpers.run_results import make_result

numbers = st.floats(allow_nan=False, allow_infinity=False)
magnitudes = st.floats(min_value=0, max_value=1e30)
counts = st.integers(min_value=0, max_value=2**63 - 1)
rows = st.builds(Row, st.text(), st.floats(0, 100), counts, counts, counts)
singles = st.builds(BudgetResult, st.text(), numbers, numbers, st.none() | magnitudes)
several = st.builds(
    BudgetResult,
    st.text(),
    numbers,
    numbers,
    parts=st.lists(singles, min_size=2, max_size=3).map(tuple),
)
results = st.builds(
    RunResult,
    name=st.text(),
    work_dir=st.just(Path('run')),
    rows=st.lists(rows, min_size=1, max_size=4).map(tuple),
    budget=st.none() | singles | several,
    seed=st.integers(-(2**63) + 1, 2**63 - 1),
    config_hash=st.text(),
    versions=st.dictionaries(st.text(), st.text(), max_size=3),
    seconds=st.dictionaries(st.text(), magnitudes, max_size=3),
    scales=st.none()
    | st.builds(ScaleStats, st.integers(1, 10**6), magnitudes, magnitudes, magnitudes),
    warnings=st.lists(st.text(), max_size=2).map(tuple),
    parts=st.dictionaries(st.text(), st.text(), max_size=2),
    method_hash=st.text(),
    epochs=st.none() | st.integers(0, 2**31),
    trained_epochs=st.none() | st.integers(0, 2**31),
)


@given(results)
def test_json_gives_the_result_back(result: RunResult) -> None:
    text = json.dumps(result.to_json(), allow_nan=False)
    assert RunResult.from_json(json.loads(text), result.work_dir) == result


def test_saved_result_loads_from_its_folder(tmp_path: Path) -> None:
    result = make_result(tmp_path / 'run')
    assert result.save() == tmp_path / 'run' / 'summary.json'
    assert RunResult.load(tmp_path / 'run') == result


def test_work_dir_follows_a_moved_run(tmp_path: Path) -> None:
    make_result(tmp_path / 'old').save()
    (tmp_path / 'old').rename(tmp_path / 'new')
    assert RunResult.load(tmp_path / 'new').work_dir == tmp_path / 'new'


def test_least_summary_is_named_by_its_folder(tmp_path: Path) -> None:
    row = {'name': 'baseline', 'accuracy': 50, 'macs': 2, 'params': 1, 'bytes': 4}
    least = {
        'rows': [row],
        'budget': None,
        'seed': 3,
        'config_hash': 'x',
        'versions': {},
        'seconds': {},
    }
    result = RunResult.from_json(least, tmp_path / 'my_run')
    assert (result.name, result.scales, result.warnings) == ('my_run', None, ())


def test_a_budget_of_before_there_were_several_is_read(tmp_path: Path) -> None:
    summary = make_result(tmp_path).to_json()
    summary['budget'] = {'kind': 'Macs', 'asked': 0.5, 'delivered': 0.4977}
    result = RunResult.from_json(summary, tmp_path)
    assert result.budget == BudgetResult('Macs', 0.5, 0.4977)
    assert result.budget is not None and result.budget.each == (result.budget,)


def test_cut_is_the_last_pruned_row_with_the_one_before(tmp_path: Path) -> None:
    twice = [Row(name, 90.0, 1, 1, 1) for name in ('baseline', 'pruned', 'sparse', 'pruned', 'end')]
    result = make_result(tmp_path, rows=tuple(twice))
    assert result.cut == (twice[2], twice[3])
    assert (result.baseline, result.final) == (twice[0], twice[4])
    assert make_result(tmp_path, rows=(twice[0],)).cut is None


def damage(path: str, value: Any) -> dict[str, Any]:
    """Return a good summary with the entry at a dotted ``path`` replaced (``...`` deletes it)."""
    summary = make_result(Path('run')).to_json()
    *parents, last = (int(key) if key.isdigit() else key for key in path.split('.'))
    target: Any = summary
    for key in parents:
        target = target[key]
    if value is ...:
        del target[last]
    else:
        target[last] = value
    return summary


@pytest.mark.parametrize(
    ('path', 'value', 'field'),
    [
        ('rows', ..., 'rows'),
        ('rows', [], 'rows'),
        ('rows', {'name': 1}, 'rows'),
        ('rows.1', 7, 'rows[1]'),
        ('rows.1.accuracy', 'high', 'rows[1].accuracy'),
        ('rows.1.accuracy', True, 'rows[1].accuracy'),
        ('rows.1.accuracy', 100.5, 'rows[1].accuracy'),
        ('rows.1.accuracy', float('nan'), 'rows[1].accuracy'),
        ('rows.1.accuracy', 10**400, 'rows[1].accuracy'),
        ('rows.0.macs', -1, 'rows[0].macs'),
        ('rows.0.macs', 1.5, 'rows[0].macs'),
        ('rows.0.macs', 2**63, 'rows[0].macs'),
        ('rows.0.params', False, 'rows[0].params'),
        ('rows.0.bytes', ..., 'rows[0].bytes'),
        ('rows.0.name', None, 'rows[0].name'),
        ('budget.asked', float('inf'), 'budget.asked'),
        ('budget', 'Macs', 'budget'),
        ('budget.spread', -1, 'budget.spread'),
        ('budget.parts', 'both', 'budget.parts'),
        ('budget.parts', [{'kind': 'Macs', 'asked': 'all'}], 'budget.parts[0].asked'),
        ('seed', '0', 'seed'),
        ('config_hash', 12, 'config_hash'),
        ('versions.torch', 2.14, 'versions.torch'),
        ('versions', [], 'versions'),
        ('seconds.train', -1, 'seconds.train'),
        ('scales.count', 0, 'scales.count'),
        ('scales.p99', ..., 'scales.p99'),
        ('warnings.0', {}, 'warnings[0]'),
        ('parts', 'abc', 'parts'),
        ('name', ['a'], 'name'),
    ],
)
def test_damage_is_reported_by_file_and_field(
    tmp_path: Path, path: str, value: Any, field: str
) -> None:
    (tmp_path / 'summary.json').write_text(json.dumps(damage(path, value)))
    with pytest.raises(EasyPrunerError) as caught:
        RunResult.load(tmp_path)
    assert f'field {field!r}' in str(caught.value)
    assert repr(str(tmp_path / 'summary.json')) in str(caught.value)


@pytest.mark.parametrize('content', [b'', b'{"rows": [', b'\xff\xfe\x00', b'[' * 100_000])
def test_unreadable_summary_is_a_plain_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / 'summary.json').write_bytes(content)
    with pytest.raises(EasyPrunerError, match='cannot be read as JSON'):
        RunResult.load(tmp_path)


@pytest.mark.parametrize('content', ['[]', '"text"', 'null', '{"loss": 0.1}'])
def test_foreign_summary_is_a_plain_error(tmp_path: Path, content: str) -> None:
    (tmp_path / 'summary.json').write_text(content)
    with pytest.raises(EasyPrunerError, match='or EasyPruner did not write it'):
        RunResult.load(tmp_path)


def test_missing_folder_and_unfinished_run_are_distinguished(tmp_path: Path) -> None:
    with pytest.raises(EasyPrunerError, match='there is no work directory'):
        RunResult.load(tmp_path / 'nowhere')
    with pytest.raises(EasyPrunerError, match=r'has no summary\.json'):
        RunResult.load(tmp_path)


def test_long_values_are_shortened_in_messages(tmp_path: Path) -> None:
    (tmp_path / 'summary.json').write_text(json.dumps(damage('seed', 'x' * 10_000)))
    with pytest.raises(EasyPrunerError) as caught:
        RunResult.load(tmp_path)
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


@pytest.mark.parametrize(
    'fields',
    [
        {},
        {'columns': ('a',), 'figure': Path('x.png')},
        {'columns': ('a', 'b'), 'rows': (('1',),)},
    ],
)
def test_artifact_is_a_whole_table_or_a_picture(fields: dict[str, Any]) -> None:
    with pytest.raises(EasyPrunerError, match="artifact 'mine'"):
        Artifact('mine', **fields)
