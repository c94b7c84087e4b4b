"""The accuracy among the metrics of an evaluator."""

from __future__ import annotations

import pytest
import torch

from easypruner.engine.runner import accuracy_in
from easypruner.errors import EasyPrunerError


@pytest.mark.parametrize('right', [0, 1, 179, 359, 360])
def test_percent_in_single_precision_are_read(right: int) -> None:
    # As mmpretrain's Accuracy counts: the sum of correct ones, times 100 / number, in float32.
    correct = torch.zeros(360)
    correct[:right] = 1
    value = float(correct.sum(0, keepdim=True).mul_(100.0 / 360))
    assert accuracy_in({'accuracy/top1': value}) == pytest.approx(100 * right / 360)
    assert 0 <= accuracy_in({'accuracy/top1': value}) <= 100


@pytest.mark.parametrize('value', [-1.0, 100.5, 250.0, float('nan')])
def test_other_numbers_are_refused(value: float) -> None:
    with pytest.raises(EasyPrunerError, match='expected percent'):
        accuracy_in({'accuracy/top1': value})


def test_without_an_accuracy_the_metrics_are_named() -> None:
    with pytest.raises(EasyPrunerError, match='reports loss, f1'):
        accuracy_in({'loss': 1.0, 'f1': 0.5})
