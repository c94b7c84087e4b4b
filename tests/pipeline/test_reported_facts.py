"""What a report says of a run: budgets of the saved network, shares of the original, warnings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from easypruner.pipeline.stages.prune import collapse_warning
from easypruner.report.result import Row, RunResult
from tests.helpers.tiny import prune, tiny_config, write_config


def source(**budget: Any) -> dict[str, Any]:
    return dict(type='SelectMask', source=dict(type='BNScale', budget=budget))


HALF = source(type='Macs', keep=0.5)
REPORT = dict(type='Report')


def reported(folder: Path, *stages: dict[str, Any]) -> RunResult:
    config = write_config(folder, tiny_config(stages=list(stages)))
    assert prune(config, folder / 'run') == 0
    return RunResult.load(folder / 'run')


def warning(result: RunResult, part: str) -> str:
    return next((text for text in result.warnings if part in text), '')


def test_masks_that_are_not_cut_deliver_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = reported(tmp_path, dict(type='Evaluate'), HALF, REPORT)
    assert result.budget is not None
    assert (result.budget.asked, result.budget.delivered) == (0.5, 1.0)
    assert 'put a Prune stage before Report' in warning(result, 'not cut')
    assert 'masks are selected but not cut' in capsys.readouterr().out


def test_a_report_between_selection_and_cut(tmp_path: Path) -> None:
    result = reported(tmp_path, dict(type='Evaluate'), HALF, REPORT, dict(type='Prune'), REPORT)
    assert result.budget is not None
    assert result.budget.delivered == result.final.macs / result.baseline.macs
    assert result.budget.delivered <= 0.5
    assert not warning(result, 'not cut')


def test_shares_refer_to_the_original_network(tmp_path: Path) -> None:
    result = reported(tmp_path, HALF, dict(type='Prune'), REPORT)
    whole = reported(tmp_path / 'whole', dict(type='Evaluate'), REPORT)
    assert result.original is not None
    assert result.original.macs == whole.final.macs
    assert result.original.params == whole.final.params
    assert result.original.bytes == pytest.approx(whole.final.bytes, rel=0.01)
    assert result.whole == result.original
    assert "changes refer to the row 'pruned'" in warning(result, 'is not known')
    assert not warning(whole, 'is not known')


def test_a_threshold_that_removes_nothing(tmp_path: Path) -> None:
    threshold = source(type='Threshold', value=1e-9)
    result = reported(tmp_path, dict(type='Evaluate'), threshold, dict(type='Prune'), REPORT)
    assert warning(result, 'remove nothing').startswith('select_mask: ')


def test_a_cut_that_takes_most_of_the_accuracy() -> None:
    before, fine, bad = (Row('sparse', accuracy, 1, 1, 1) for accuracy in (90.0, 45.0, 44.0))
    assert collapse_warning(before, fine) == ''
    assert 'the accuracy fell from 90.00 % (sparse) to 44.00 %' in collapse_warning(before, bad)
