"""Rewind: the weights from before the first push, the masks from after it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from easypruner.engine.checkpoint import read_weights
from easypruner.graph import Masks
from tests.helpers.tiny import prune, summary, tiny_config, write_config

BASELINE = dict(type='Train', name='baseline', epochs=1, row='baseline')
PUSH = dict(
    type='Train', name='push', epochs=1, regularizer=dict(type='GlobalSparsity', strength=1e-3)
)
SELECT = dict(
    type='SelectMask',
    source=dict(type='BNScale', reduction='vote', budget=dict(type='Macs', keep=0.5)),
)
REWIND, CUT, REPORT = dict(type='Rewind'), dict(type='Prune'), dict(type='Report')


def run(folder: Path, stages: list[dict[str, Any]], *arguments: str) -> int:
    config = write_config(folder, tiny_config(stages=[*stages, REPORT]))
    return prune(config, folder / 'run', *arguments)


def test_weights_are_the_trained_ones_and_masks_those_of_the_push(tmp_path: Path) -> None:
    assert run(tmp_path, [BASELINE, PUSH, SELECT, REWIND | dict(row='again'), CUT]) == 0
    folder = tmp_path / 'run'
    trained, pushed, again = (
        read_weights(folder / stage / 'weights.pth')
        for stage in ('00_baseline', '01_push', '03_rewind')
    )
    assert trained.keys() == again.keys()
    assert all(torch.equal(trained[name], again[name]) for name in trained)
    assert any(not torch.equal(pushed[name], again[name]) for name in trained)
    rows = {row['name']: row for row in summary(folder)['rows']}
    assert rows['again']['accuracy'] == rows['baseline']['accuracy']
    masks = Masks.load(folder / '02_select_mask' / 'masks.safetensors')
    assert masks.removed_units > 0
    assert rows['pruned']['macs'] < rows['baseline']['macs']


def test_a_run_that_ends_without_a_cut_rewinds_too(tmp_path: Path) -> None:
    assert run(tmp_path, [BASELINE, PUSH, REWIND]) == 0
    trained, again = (
        read_weights(tmp_path / 'run' / stage / 'weights.pth')
        for stage in ('00_baseline', '02_rewind')
    )
    assert all(torch.equal(trained[name], again[name]) for name in trained)


@pytest.mark.parametrize(
    ('stages', 'message'),
    [
        ([BASELINE, SELECT, REWIND, CUT], 'no stage before it pushes a trained network'),
        ([PUSH, SELECT, REWIND, CUT], 'no stage before it pushes a trained network'),
        ([BASELINE, PUSH, SELECT, CUT, REWIND], 'move Rewind before the cut'),
    ],
)
def test_what_it_cannot_return_to_is_reported_before_the_run(
    stages: list[dict[str, Any]],
    message: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert run(tmp_path, stages, '--plan') == 2
    assert message in capfd.readouterr().err
