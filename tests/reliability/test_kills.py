"""A run that is killed at any moment continues to the same result."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.helpers.disturbed import cases, report, results, spread
from tests.helpers.zygote import Zygote
from tests.reliability.conftest import Whole, continued

pytestmark = pytest.mark.slow


def test_a_killed_run_continues_to_the_same_bits(
    zygote: Zygote, whole: Whole, tmp_path: Path
) -> None:
    outcomes: Counter[str] = Counter()
    points = spread(whole.changes, cases(3, 40))
    for change in points:
        run = tmp_path / f'run{change}'
        command = ['prune', whole.config, '--work-dir', run]
        killed = zygote.run(command, run, act='kill', change=change)
        outcomes['killed' if killed.code == -9 else 'ended before'] += 1
        end = continued(zygote, whole, run)
        same = end.code == 0 and results(run) == whole.results
        outcomes['the same result' if same else f'another end: {end.output[-300:]}'] += 1
        shutil.rmtree(run)
    report('kills', len(points), outcomes)
    assert set(outcomes) <= {'killed', 'ended before', 'the same result'}, outcomes
    assert outcomes['killed'] > 0


def test_a_run_that_is_killed_again_and_again_comes_to_its_end(
    zygote: Zygote, whole: Whole, tmp_path: Path
) -> None:
    run = tmp_path / 'run'
    command = ['prune', whole.config, '--work-dir', run]
    assert zygote.run(command, run, act='kill', change=40).code == -9
    for _ in range(cases(2, 8)):
        zygote.run([*command, '--resume'], run, act='kill', change=25)
    assert continued(zygote, whole, run).code == 0
    assert results(run) == whole.results
