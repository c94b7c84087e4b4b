"""Scores: reductions over coupled layers, the vote, and normalizations."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from easypruner.errors import EasyPrunerError
from easypruner.strategies.scores import Scores, VoteScores
from easypruner.strategies.sources.scores import normalize, reduce_layers
from tests.helpers.votes import scores_of_layers, units_outvoted

LAYERS = torch.tensor([[1.0, 5.0, 3.0], [4.0, 2.0, 3.0]])


@pytest.mark.parametrize(
    ('reduction', 'expected'),
    [
        ('mean', [2.5, 3.5, 3.0]),
        ('max', [4.0, 5.0, 3.0]),
        ('sum', [5.0, 7.0, 6.0]),
        ('first', [1.0, 5.0, 3.0]),
    ],
)
def test_reductions(reduction: str, expected: list[float]) -> None:
    assert reduce_layers({'g': LAYERS}, reduction)['g'].tolist() == expected


def test_a_vote_where_the_layers_disagree() -> None:
    layers = [[0.001, 0.5, 0.5], [0.002, 0.001, 0.5]]
    assert units_outvoted(layers, 0.01) == {0}
    scores = reduce_layers({'g': torch.tensor(layers)}, 'vote')
    assert scores.above(0.01)['g'].tolist() == [False, True, True]


@given(layers=scores_of_layers, threshold=st.sampled_from([-0.1, 0.0, 0.1, 0.2, 0.3]))
def test_a_vote_follows_the_rule(layers: list[list[float]], threshold: float) -> None:
    scores = VoteScores({'g': torch.tensor(layers, dtype=torch.float64)})
    removed = {i for i, kept in enumerate(scores.above(threshold)['g'].tolist()) if not kept}
    assert removed == units_outvoted(layers, threshold)


@given(layers=scores_of_layers)
def test_a_votes_ranking_is_the_lowest_threshold_that_removes(layers: list[list[float]]) -> None:
    ranking = VoteScores({'g': torch.tensor(layers, dtype=torch.float64)})['g'].tolist()
    thresholds = sorted(set(itertools.chain.from_iterable(layers)))
    for unit, score in enumerate(ranking):
        removing = [t for t in thresholds if unit in units_outvoted(layers, t)]
        assert score == min(removing)


def test_nan_scores_are_refused() -> None:
    with pytest.raises(EasyPrunerError, match=r"group 'g'.*1 of 2 are NaN"):
        reduce_layers({'g': torch.tensor([1.0, float('nan')])}, 'mean')


@pytest.mark.parametrize(
    ('name', 'measure'), [('mean', Tensor.mean), ('max', Tensor.max), ('sum', Tensor.sum)]
)
def test_normalization_makes_groups_comparable(name: str, measure: object) -> None:
    scores = normalize(Scores({'a': torch.rand(5), 'b': 100 * torch.rand(7)}), name)
    assert all(measure(score).isclose(torch.tensor(1.0)) for score in scores.values())
    zeros = normalize(Scores({'a': torch.zeros(3)}), name)
    assert zeros['a'].tolist() == [0, 0, 0]


positive = st.lists(st.floats(0, 100).map(lambda x: round(x, 3)), min_size=1, max_size=8)


@given(scores=positive)
def test_lamp_divides_by_all_that_are_not_before(scores: list[float]) -> None:
    actual = normalize(Scores({'a': torch.tensor(scores, dtype=torch.float64)}), 'lamp')[
        'a'
    ].tolist()
    order = sorted(range(len(scores)), key=lambda unit: (scores[unit], unit))
    for position, unit in enumerate(order):
        rest = sum(scores[other] for other in order[position:])
        expected = scores[unit] / rest if scores[unit] else 0
        assert actual[unit] == pytest.approx(expected, rel=1e-9)


@given(scores=st.lists(st.integers(-50, 50), min_size=1, max_size=8))
def test_gaussian_has_no_mean_and_a_deviation_of_one(scores: list[int]) -> None:
    actual = normalize(Scores({'a': torch.tensor(scores).double() / 7}), 'gaussian')['a'].tolist()
    if len(set(scores)) == 1:
        assert actual == [0] * len(scores)
        return
    assert sum(actual) == pytest.approx(0, abs=1e-9)
    assert sum(score**2 for score in actual) / len(actual) == pytest.approx(1)
    assert sorted(range(len(actual)), key=lambda u: actual[u]) == sorted(
        range(len(actual)), key=lambda u: scores[u]
    )


def test_equal_scores_stay_equal_whatever_their_mean_rounds_to() -> None:
    for value in (0.1, 0.3, 1e-30, 1e30):
        assert (
            normalize(Scores({'a': torch.full((7,), value)}), 'gaussian')['a'].tolist() == [0] * 7
        )


@pytest.mark.parametrize('name', ['mean', 'max', 'sum', 'lamp'])
@pytest.mark.parametrize('scores', [[-3.0, -1.0], [-4.0, 0.0, -1.0], [-0.5, -0.5]])
def test_scores_below_zero_keep_their_order(name: str, scores: list[float]) -> None:
    with pytest.raises(EasyPrunerError, match=r"group 'a' have .*; use normalization='gaussian'"):
        normalize(Scores({'a': torch.tensor(scores)}), name)


@pytest.mark.parametrize('name', ['mean', 'sum'])
def test_a_divisor_of_zero_is_reported_if_scores_differ(name: str) -> None:
    with pytest.raises(EasyPrunerError, match="group 'a' have one of 0"):
        normalize(Scores({'a': torch.tensor([-1.0, 1.0])}), name)


@pytest.mark.parametrize('name', ['mean', 'max', 'sum', 'gaussian', 'lamp'])
def test_scores_that_become_nan_are_refused(name: str) -> None:
    scores = Scores({'b': torch.ones(2), 'a': torch.tensor([1.0, float('inf')])})
    with pytest.raises(EasyPrunerError, match=r"the scores of group 'a' into NaN: .* is inf"):
        normalize(scores, name)


def test_votes_cannot_be_normalized() -> None:
    with pytest.raises(EasyPrunerError, match="normalization='mean'"):
        normalize(VoteScores({'g': LAYERS}), 'mean')
