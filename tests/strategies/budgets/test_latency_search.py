"""The search for a time that has steps: more networks are measured where none is near the limit."""

from __future__ import annotations

import pytest
import torch

from easypruner import Masks
from easypruner.runtimes.timing import Reading
from easypruner.strategies.budgets.latency_search import Unit, search
from easypruner.strategies.budgets.ranking import Ranking

LIMIT = 0.7


@pytest.mark.parametrize('step', [0.78, 0.82, 0.86])
def test_a_narrow_stretch_below_the_limit_is_found(step: float) -> None:
    counts: dict[float, int] = {}

    def predict(masks: Masks) -> float:
        return float(masks['a'].double().mean())

    def measure(masks: Masks, sure: bool) -> Reading:
        share = predict(masks)
        counts[share] = counts.get(share, 0) + 1
        time = 0.6 if share < step else 0.685 if share < step + 0.01 else 0.73 + (share - step) / 2
        return Reading(time, 0.0, 9)

    found = search(Ranking.of({'a': torch.arange(1000.0)}), predict, measure, LIMIT, Unit())
    assert 0.97 * LIMIT <= found.measured.median <= LIMIT
    assert len(counts) <= 8
