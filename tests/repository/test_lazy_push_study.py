"""benchmarks/lazy_push_study.py: each method pushes in the same four ways."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from easypruner.cli.main import main
from easypruner.study.runs import runs_of
from easypruner.study.study_file import read_study

FILE = Path(__file__).parents[2] / 'benchmarks' / 'lazy_push_study.py'


def test_all_methods_push_in_the_same_ways() -> None:
    runs = runs_of(read_study(FILE))
    counts = Counter((run.method, *run.swept.values()) for run in runs)
    assert {method for method, _ in counts} == {'masksparsity', 'slimming', 'depgraph', 'greg'}
    assert {every for _, every in counts} == {1, 4, 16, 32}
    assert set(counts.values()) == {5} and len(counts) == 16
    assert {str(run.budget) for run in runs} == {"{'type': 'Macs', 'keep': 0.3}"}


@pytest.mark.slow
def test_its_configs_are_valid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['study', str(FILE), '--plan', '--out', str(tmp_path)]) == 0
    assert '80 runs' in capsys.readouterr().out
