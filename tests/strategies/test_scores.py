"""Scores: a budget's operations keep the votes, which plain dicts of tensors would lose."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from easypruner import Scores
from easypruner.strategies.scores import VoteScores
from tests.helpers.votes import layers_of_groups, units_outvoted

THRESHOLDS = st.sampled_from([-0.1, 0.0, 0.1, 0.2, 0.3])


@given(groups=layers_of_groups(), thresholds=st.lists(THRESHOLDS, min_size=3, max_size=3))
def test_each_group_is_voted_on_at_its_own_threshold(
    groups: dict[str, list[list[float]]], thresholds: list[float]
) -> None:
    scores = VoteScores({name: torch.tensor(layers) for name, layers in groups.items()})
    each = dict(zip(groups, thresholds, strict=True))
    for name, mask in scores.above(each).items():
        assert set((~mask).nonzero().flatten().tolist()) == units_outvoted(groups[name], each[name])


@given(groups=layers_of_groups(), threshold=THRESHOLDS)
def test_votes_survive_a_copy_of_some_groups(
    groups: dict[str, list[list[float]]], threshold: float
) -> None:
    scores = VoteScores({name: torch.tensor(layers) for name, layers in groups.items()})
    some = scores.only(['c', 'a'])
    assert list(some) == ['c', 'a']
    whole = scores.above(threshold)
    assert dict(some.above(threshold)).keys() == {'a', 'c'}
    for name, mask in some.above(threshold).items():
        assert torch.equal(mask, whole[name])


def test_a_plain_dict_of_the_tensors_loses_the_votes() -> None:
    """At 0.2, each layer votes against two units; two units have three votes; ranks remove all."""
    layers = torch.tensor([[0.2, 0.1, 0.1, 0.1], [0.0, 0.2, 0.3, 0.0], [0.0, 0.1, 0.1, 0.0]])
    scores = VoteScores({'g': layers})
    assert Scores.of(scores) is scores
    assert scores.above(0.2)['g'].tolist() == [False, False, True, False]
    assert Scores.of(dict(scores)).above(0.2)['g'].tolist() == [False] * 4


def test_scores_cannot_be_changed() -> None:
    scores = Scores({'g': torch.ones(2)})
    with pytest.raises(TypeError):
        scores['g'] = torch.zeros(2)  # type: ignore[index]


def test_a_group_without_a_threshold_is_an_error() -> None:
    with pytest.raises(KeyError, match='h'):
        Scores({'g': torch.ones(2), 'h': torch.ones(2)}).above({'g': 0.5})
