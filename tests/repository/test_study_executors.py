"""benchmarks/study_executors.py: the page says which lines of the executors are the same."""

from __future__ import annotations

from typing import Any

from tests.helpers.benchmarks import table


def line(name: str, final: float, macs: float = 1.0) -> dict[str, Any]:
    return {'name': name, 'final': {'mean': final}, 'macs': {'mean': macs}}


def test_the_page_counts_the_lines_that_are_the_same(module: Any) -> None:
    lines = {
        'local': [line('a', 90.0), line('b', 80.0), line('c', 70.0)],
        'ray': [line('a', 90.0), line('b', 81.0), line('c', 70.0, macs=2.0)],
    }
    found = {
        'methods': ['a', 'b', 'c'], 'seeds': [0, 1], 'budgets': [0.5], 'epochs': 1, 'images': 1000,
        'lines': lines, 'machine': 'a machine', 'versions': {'torch': '2', 'ray': '3'},
    }  # fmt: skip
    page = module('study_executors').page(found)
    rows = {row[0]: row[1:] for row in table(page, '| result')}
    assert rows == {
        'a': ['90.00', '90.00'],
        'b': ['80.00', '81.00'],
        'c': ['70.00', '70.00'],
    }
    text = ' '.join(page.split())
    assert '1 of 3 lines' in text and '2 seeds' in text and 'torch 2, ray 3' in text
