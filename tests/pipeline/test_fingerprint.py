"""Hashes of configs: what makes two runs seeds of one method, and what makes them differ."""

from __future__ import annotations

from typing import Any

import pytest
from mmengine.config import Config

from easypruner.pipeline.fingerprint import method_fingerprint, part_fingerprints
from easypruner.testing import tiny_config

_STAGES = [dict(type='Evaluate', checkpoint='a.pth'), dict(type='Report')]


def config(**more: Any) -> Config:
    return Config({**tiny_config(_STAGES), 'train_cfg': dict(max_epochs=4), **more})


@pytest.mark.parametrize(
    'more',
    [
        {'train_cfg': dict(max_epochs=4, val_interval=3)},
        {'stages': [dict(type='Evaluate', checkpoint='b.pth'), dict(type='Report')]},
        {'randomness': dict(seed=7)},
        {'work_dir': 'elsewhere'},
        {'log_level': 'ERROR'},
    ],
)
def test_what_changes_no_result_is_left_out(more: dict[str, Any]) -> None:
    assert method_fingerprint(config(**more)) == method_fingerprint(config())


@pytest.mark.parametrize(
    'more',
    [
        {'train_cfg': dict(max_epochs=5)},
        {'stages': [dict(type='Evaluate', row='whole', checkpoint='a.pth'), dict(type='Report')]},
        {'optim_wrapper': dict(optimizer=dict(type='SGD', lr=0.3))},
        {'val_evaluator': dict(type='Accuracy', topk=(5,))},
        {'load_from': 'a.pth'},
    ],
)
def test_what_changes_results_counts(more: dict[str, Any]) -> None:
    assert method_fingerprint(config(**more)) != method_fingerprint(config())


def test_equal_epochs_are_equal_schedules() -> None:
    longer = config(train_cfg=dict(max_epochs=9, val_interval=2))
    assert part_fingerprints(longer, 26) == part_fingerprints(config(), 26)
    assert part_fingerprints(longer, 26) != part_fingerprints(longer, 25)
