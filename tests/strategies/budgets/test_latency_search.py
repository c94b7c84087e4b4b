"""The search for a time that has steps: more networks are measured where none is near the limit."""

from __future__ import annotations

import pytest
import torch

from easypruner import Masks
from easypruner.errors import BudgetError
from easypruner.graph import Limits
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


def test_a_limit_below_what_is_possible_is_refused_with_what_is() -> None:
    def predict(masks: Masks) -> float:
        return float(masks['a'].double().mean())

    def measure(masks: Masks, sure: bool) -> Reading:
        return Reading(0.75 + 0.25 * predict(masks), 0.0, 9)

    ranking = Ranking.of({'a': torch.arange(1000.0)})
    with pytest.raises(BudgetError, match=r'limit is 0\.7 .* 0\.7502 .* is the lowest possible'):
        search(ranking, predict, measure, LIMIT, Unit())


def test_a_limit_that_the_narrowest_networks_alone_meet() -> None:
    def predict(masks: Masks) -> float:
        return float(masks['a'].double().mean())

    def measure(masks: Masks, sure: bool) -> Reading:
        share = predict(masks)
        return Reading(0.5 if share < 0.002 else 0.9 + 0.1 * share, 0.0, 9)

    ranking = Ranking.of({'a': torch.arange(1000.0)})
    assert search(ranking, predict, measure, LIMIT, Unit()).measured.median == 0.5


def test_other_groups_keep_more_where_the_time_has_a_step() -> None:
    def predict(masks: Masks) -> float:
        return sum(float(mask.double().mean()) for mask in masks.values()) / len(masks)

    def measure(masks: Masks, sure: bool) -> Reading:
        wide = int(masks['a'].sum()) > 72
        return Reading(0.9 * predict(masks) + (0.1 if wide else 0.0), 0.0, 9)

    scores = {name: torch.arange(100.0) for name in 'abc'}
    ranking = Ranking.of(scores)
    # On the ranking all groups have the same width: below the step the time is at most 0.648.
    assert measure(ranking.within(predict, 0.72, ''), True).median <= 0.96 * LIMIT
    assert measure(ranking.within(predict, 0.74, ''), True).median > LIMIT
    found = search(ranking, predict, measure, LIMIT, Unit())
    assert 0.97 * LIMIT <= found.measured.median <= LIMIT
    assert int(found.masks['a'].sum()) <= 72 < int(found.masks['b'].sum())
    for name, mask in found.masks.items():
        kept, gone = scores[name][mask], scores[name][~mask]
        assert kept.min() > gone.max()


def test_one_of_the_groups_at_a_step_is_its_cause() -> None:
    def predict(masks: Masks) -> float:
        return sum(float(mask.double().mean()) for mask in masks.values()) / len(masks)

    def measure(masks: Masks, sure: bool) -> Reading:
        return Reading(0.9 * predict(masks) + (0.1 if int(masks['a'].sum()) > 112 else 0.0), 0.0, 9)

    # All groups differ at each step of the ranking, so that none is left to keep more.
    limits = {name: Limits(round_to=8) for name in 'abcd'}
    ranking = Ranking.of({name: torch.arange(160.0) / 160 for name in limits}, limits)
    found = search(ranking, predict, measure, LIMIT, Unit())
    assert 0.97 * LIMIT <= found.measured.median <= LIMIT
    assert int(found.masks['a'].sum()) <= 112 < int(found.masks['d'].sum())


def test_a_first_reading_that_other_load_shifts_is_not_taken_as_it_is() -> None:
    readings: list[Reading] = []

    def predict(masks: Masks) -> float:
        return float(masks['a'].double().mean())

    def truth(masks: Masks) -> float:
        return 1.06 * predict(masks)

    def measure(masks: Masks, sure: bool) -> Reading:
        shift = 1.0 if readings else 0.94
        readings.append(Reading(shift * truth(masks), 0.0, 20 if sure else 10))
        return readings[-1]

    found = search(Ranking.of({'a': torch.arange(1000.0)}), predict, measure, LIMIT, Unit())
    assert 0.98 * LIMIT <= truth(found.masks) <= LIMIT
