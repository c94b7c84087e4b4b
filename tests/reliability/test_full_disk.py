"""A disk that is full at any write: one message, and a run that continues once there is space."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.helpers.disturbed import cases, report, results, spread
from tests.helpers.zygote import Zygote
from tests.reliability.conftest import Whole, continued

pytestmark = pytest.mark.slow


def test_a_full_disk_is_a_message_and_loses_nothing(
    zygote: Zygote, whole: Whole, tmp_path: Path
) -> None:
    outcomes: Counter[str] = Counter()
    points = spread(whole.changes, cases(3, 40))
    for change in points:
        run = tmp_path / f'run{change}'
        full = zygote.run(
            ['prune', whole.config, '--work-dir', run], run, act='full', change=change
        )
        if full.code == 0 and results(run) == whole.results:
            # A removed file needs no space, as at the end of a run.
            outcomes['not disturbed'] += 1
            continue
        told = full.code == 2 and full.is_clean and 'easypruner: ' in full.output
        outcomes['a message' if told else f'at {change}: {full.code} {full.output[-600:]}'] += 1
        end = continued(zygote, whole, run)
        same = end.code == 0 and results(run) == whole.results
        outcomes['the same result' if same else f'another end: {end.output[-300:]}'] += 1
        shutil.rmtree(run, ignore_errors=True)
    report('full disk', len(points), outcomes)
    assert set(outcomes) <= {'a message', 'not disturbed', 'the same result'}, outcomes
    assert outcomes['a message'] > 0
