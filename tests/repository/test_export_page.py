"""The page on exports: its blocks run in their order, and its table is that of the results."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from easypruner.testing import run_stages

from .test_code_blocks import ROOT, blocks_of

PAGE = ROOT / 'docs' / 'export.md'
RESULTS = ROOT / 'benchmarks' / 'results' / 'exports.json'


@pytest.mark.slow
def test_the_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'path', list(sys.path))
    names: dict[str, Any] = {}
    blocks = [b for b in blocks_of(PAGE.read_text(encoding='utf-8')) if b.language == 'python']
    assert len(blocks) == 4
    for block in blocks:
        exec(block.text, names)
    images = names['images']
    expected, got = (each(images) for each in (names['pruned'].eval(), names['program']))
    assert (expected - got).abs().max() < 1e-4 * expected.abs().max()
    summary = run_stages(names['stages'][:-1], tmp_path / 'run')
    assert summary['rows'][-1]['name'] == 'pruned'
    assert (tmp_path / 'run' / 'run' / 'export' / 'TorchEager' / 'network.pt2').is_file()


def test_the_table_is_that_of_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / 'benchmarks'))
    page = importlib.import_module('exports_page')
    content = json.loads(RESULTS.read_text(encoding='utf-8'))
    assert page.table(content) in PAGE.read_text(encoding='utf-8')
    exported = [row for row in content['models'] if row['error'] is not None]
    assert len(exported) >= 30
    assert max(row['error'] for row in exported) <= 1e-4
    assert all(row['reason'] for row in content['models'] if row['error'] is None)
