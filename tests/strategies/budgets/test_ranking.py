"""Ranking: the lowest are removed first, each group keeps its best, and widths are allowed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from easypruner.errors import BudgetError
from easypruner.graph.limits import Limits
from easypruner.graph.masks import Masks
from easypruner.strategies.budgets.ranking import (
    Ranking,
    format_limit,
    keep_best,
    partial_masks,
    within_limits,
)

limits = st.builds(
    Limits,
    min_units=st.integers(1, 9),
    max_removed=st.floats(0, 1),
    round_to=st.integers(1, 5),
)
values = st.one_of(st.integers(-3, 3).map(float), st.floats(allow_nan=False, width=32))
scored = st.dictionaries(
    st.sampled_from('abcde'),
    st.lists(values, min_size=1, max_size=12).map(torch.tensor),
    min_size=1,
)
bounds = st.dictionaries(st.sampled_from('abcde'), limits)


def is_best(mask: Tensor, score: Tensor) -> bool:
    """Return whether no removed unit has a higher score than a kept one."""
    return bool(mask.all()) or float(score[~mask].max()) <= float(score[mask].min())


def allowed(mask: Tensor, limit: Limits) -> bool:
    return int(mask.sum()) in limit.widths(mask.numel())


@given(scored, bounds, st.data())
def test_kept_units_are_the_best_of_each_group_within_its_limits(
    scores: dict[str, Tensor], given_limits: dict[str, Limits], data: st.DataObject
) -> None:
    ranking = Ranking.of(scores, given_limits)
    count = data.draw(st.integers(0, len(ranking.order)))
    masks = ranking.removing(count)
    assert list(masks) == list(scores)
    for name, mask in masks.items():
        assert is_best(mask, scores[name])
        assert allowed(mask, given_limits.get(name, Limits()))


@given(scored, st.data())
def test_without_limits_exactly_as_many_are_removed_and_they_are_the_lowest(
    scores: dict[str, Tensor], data: st.DataObject
) -> None:
    units = sum(score.numel() for score in scores.values())
    count = data.draw(st.integers(0, units - len(scores)))
    masks = Ranking.of(scores).removing(count)
    assert masks.removed_units == count
    # The best unit of each group is not a candidate, because it always stays.
    candidates = sorted(value for score in scores.values() for value in sorted(score.tolist())[:-1])
    gone = sorted(value for n, mask in masks.items() for value in scores[n][~mask].tolist())
    assert gone == candidates[:count]


@settings(deadline=None)
@given(scored, bounds, st.floats(0.05, 1), st.lists(st.integers(1, 9), min_size=5, max_size=5))
def test_within_meets_a_limit_and_one_more_step_would_exceed_it(
    scores: dict[str, Tensor], given_limits: dict[str, Limits], keep: float, prices: list[int]
) -> None:
    price = dict(zip('abcde', prices, strict=True))

    def cost(masks: Masks) -> float:
        return sum(price[name] * masks.kept(name) for name in masks)

    ranking = Ranking.of(scores, given_limits)
    limit = keep * cost(ranking.removing(0))
    least = sum(
        price[n] * given_limits.get(n, Limits()).widths(s.numel())[0] for n, s in scores.items()
    )
    if least > limit:
        with pytest.raises(BudgetError, match=f'but {format_limit(least)} is the lowest possible'):
            ranking.within(cost, limit, 'things')
        return
    masks = ranking.within(cost, limit, 'things')
    assert cost(masks) <= limit
    for name, mask in masks.items():
        limit_of_group = given_limits.get(name, Limits())
        assert is_best(mask, scores[name]) and allowed(mask, limit_of_group)
        wider = [w for w in limit_of_group.widths(mask.numel()) if w > masks.kept(name)]
        if wider:
            assert cost(masks) + price[name] * (wider[0] - masks.kept(name)) > limit


def test_equal_scores_are_removed_evenly_from_groups_of_any_size() -> None:
    scores = {'a': torch.zeros(10), 'b': torch.zeros(20), 'c': torch.zeros(40)}
    masks = Ranking.of(scores).removing(35)
    assert [masks.kept(name) for name in scores] == [5, 10, 20]


def test_nothing_to_rank() -> None:
    ranking = Ranking.of({})
    assert len(ranking.removing(0)) == 0
    assert len(ranking.within(lambda masks: 3.0, 3.0, 'things')) == 0
    with pytest.raises(BudgetError, match='3 is the lowest possible'):
        ranking.within(lambda masks: 3.0, 2.0, 'things')


def test_infinite_scores_are_removed_last_and_minus_infinite_ones_first() -> None:
    inf = float('inf')
    scores = {'a': torch.tensor([inf, 1, -inf, 2]), 'b': torch.tensor([5.0, inf])}
    ranking = Ranking.of(scores)
    gone = [
        [(n, i) for n, m in ranking.removing(k).items() for i in (~m).nonzero().flatten().tolist()]
        for k in range(5)
    ]
    assert gone[1] == [('a', 2)]
    assert gone[2] == [('a', 1), ('a', 2)]
    assert gone[3] == [('a', 1), ('a', 2), ('a', 3)]
    assert gone[4] == [('a', 1), ('a', 2), ('a', 3), ('b', 0)]


def test_one_unit_is_never_removed() -> None:
    one = torch.tensor([-7.0])
    assert keep_best(one, 0).tolist() == [True]
    assert Ranking.of({'a': one}).removing(1)['a'].tolist() == [True]


@given(st.lists(values, min_size=1, max_size=12).map(torch.tensor), limits, st.data())
def test_keep_best_keeps_the_nearest_allowed_number(
    score: Tensor, limit: Limits, data: st.DataObject
) -> None:
    count = data.draw(st.integers(0, score.numel()))
    mask = keep_best(score, count, limit)
    widths = limit.widths(score.numel())
    assert abs(int(mask.sum()) - count) == min(abs(width - count) for width in widths)
    assert is_best(mask, score)


def test_masks_within_the_limits_stay_as_they_are() -> None:
    scores = {'a': torch.tensor([1.0, 2.0, 3.0, 4.0])}
    odd = {'a': torch.tensor([True, False, True, False])}
    assert within_limits(odd, scores, {'a': Limits(round_to=2)})['a'].equal(odd['a'])
    wider = within_limits(odd, scores, {'a': Limits(min_units=3)})
    assert wider['a'].tolist() == [True, False, True, True]


@given(scored, bounds, st.data())
def test_all_units_kept_by_masks_stay_and_no_more_than_the_next_width(
    scores: dict[str, Tensor], given_limits: dict[str, Limits], data: st.DataObject
) -> None:
    masks = {
        name: torch.tensor(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
        for name, n in ((name, score.numel()) for name, score in scores.items())
    }
    safe = within_limits(masks, scores, given_limits)
    for name, mask in masks.items():
        assert bool(safe[name][mask].all())
        widths = given_limits.get(name, Limits()).widths(mask.numel())
        assert safe.kept(name) == min(w for w in widths if w >= int(mask.sum()))
        added, out = scores[name][safe[name] & ~mask], scores[name][~safe[name]]
        assert not len(added) or not len(out) or float(added.min()) >= float(out.max())


@given(scored, bounds, st.data())
def test_keeping_is_as_near_as_the_limits_allow(
    scores: dict[str, Tensor], given_limits: dict[str, Limits], data: st.DataObject
) -> None:
    ranking = Ranking.of(scores, given_limits)
    widths = {n: given_limits.get(n, Limits()).widths(s.numel()) for n, s in scores.items()}
    least = sum(w[0] for w in widths.values())
    units = data.draw(st.integers(0, sum(ranking.sizes)))
    masks, nearest = ranking.keeping(units), ranking.keeping(units, or_more=True)
    kept, near = (sum(m.kept(name) for name in m) for m in (masks, nearest))
    assert kept <= max(units, least)
    assert abs(near - units) <= abs(kept - units)
    for name, mask in masks.items():
        assert is_best(mask, scores[name]) and masks.kept(name) in widths[name]
        above = [w for w in widths[name] if w > masks.kept(name)]
        assert not above or kept + above[0] - masks.kept(name) > units


def test_a_part_is_the_lowest_of_the_removed_units() -> None:
    scores = {'a': torch.tensor([5.0, 1.0, 4.0, 2.0, 3.0])}
    whole = {'a': torch.tensor([True, False, False, False, False])}
    assert partial_masks(whole, scores, {}, 0.5)['a'].tolist() == [True, False, True, False, True]
    assert partial_masks(whole, scores, {}, 1.0)['a'].tolist() == whole['a'].tolist()
