"""A sparsity stage that will not come below the threshold after it says so while it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.helpers.tiny import prune, summary, tiny_config, write_config
from tests.pipeline.test_resume import stopped

TREND = 'by the trend of this stage, the masks after it will remove nothing'
THRESHOLDS = [dict(type='Threshold', value=0.01), dict(type='GroupThreshold', values={'*': 0.01})]


def content_of(reach: float, budget: dict[str, Any], source: str = 'BNScale') -> dict[str, Any]:
    push = dict(type='GlobalSparsity', strength=dict(reach=reach), apply='proximal')
    return tiny_config(
        stages=[
            dict(type='Train', name='push', epochs=4, row='baseline', regularizer=push),
            dict(type='SelectMask', source=dict(type=source, budget=budget)),
            dict(type='Report'),
        ]
    )


def trends(folder: Path) -> list[str]:
    return [text for text in summary(folder)['warnings'] if TREND in text]


@pytest.mark.parametrize('budget', THRESHOLDS, ids=lambda budget: budget['type'])
def test_a_weak_push_is_said_before_the_stage_ends(
    budget: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prune(write_config(tmp_path, content_of(0.1, budget)), tmp_path / 'run') == 0
    (warning,) = trends(tmp_path / 'run')
    assert warning.startswith('push: ')
    assert 'after epoch 2' in warning
    assert 'expected' in warning
    assert TREND in ' '.join(capsys.readouterr().out.split())


def test_a_resumed_stage_says_the_same(tmp_path: Path) -> None:
    content = content_of(0.1, THRESHOLDS[0])
    assert prune(write_config(tmp_path / 'whole', content), tmp_path / 'whole' / 'run') == 0
    run = stopped(tmp_path / 'stopped', '00_push', 3, 0, content)
    assert prune(write_config(tmp_path / 'stopped', content), run, '--resume') == 0
    assert trends(run) == trends(tmp_path / 'whole' / 'run') != []


@pytest.mark.parametrize(
    'content',
    [
        content_of(20.0, THRESHOLDS[0]),
        pytest.param(content_of(0.1, dict(type='Ratio', keep=0.5)), marks=pytest.mark.slow),
        # Its scores need data, which a training stage does not read for this.
        content_of(0.1, THRESHOLDS[0], 'Taylor'),
    ],
    ids=['strong', 'no threshold', 'scores from data'],
)
def test_it_is_silent_where_nothing_is_known_to_be_wrong(
    content: dict[str, Any], tmp_path: Path
) -> None:
    assert prune(write_config(tmp_path, content), tmp_path / 'run') == 0
    assert trends(tmp_path / 'run') == []
