"""GroupThreshold: each group has its threshold, and coupled layers still vote on it."""

from __future__ import annotations

import re

import pytest
import torch
from easypruner_plugins.group_threshold import GroupThreshold
from hypothesis import given
from hypothesis import strategies as st

import easypruner
from easypruner import Context, Limits
from easypruner.errors import ConfigError
from easypruner.strategies.scores import VoteScores
from easypruner.testing import example_inputs
from easypruner.testing.networks import Plain
from tests.helpers.votes import units_outvoted

GRAPH = easypruner.trace(Plain(), example_inputs())
NAMES = tuple(GRAPH.groups)
VALUES = st.sampled_from([0.0, 0.1, 0.2, 0.3])


@given(data=st.data())
def test_a_vote_is_taken_at_the_threshold_of_each_group(data: st.DataObject) -> None:
    layers, thresholds = {}, {}
    for name, group in GRAPH.groups.items():
        row = st.lists(VALUES, min_size=group.size, max_size=group.size)
        layers[name] = data.draw(st.lists(row, min_size=1, max_size=3))
        thresholds[name] = data.draw(VALUES)
    scores = VoteScores({name: torch.tensor(rows) for name, rows in layers.items()})
    masks = GroupThreshold(thresholds)(scores, GRAPH, Context())
    assert masks.keys() == GRAPH.groups.keys()
    for name, mask in masks.items():
        gone = units_outvoted(layers[name], thresholds[name])
        if len(gone) < mask.numel():
            assert set((~mask).nonzero().flatten().tolist()) == gone
        else:
            assert masks.kept(name) == 1


def test_the_first_pattern_counts_and_groups_without_one_stay_whole() -> None:
    scores = easypruner.Scores({n: torch.linspace(0, 1, g.size) for n, g in GRAPH.groups.items()})
    first, last = NAMES[0], NAMES[-1]
    masks = GroupThreshold({first: 0.5})(scores, GRAPH, Context())
    assert masks.keys() == {first}
    assert masks.kept(first) == GRAPH.groups[first].size // 2
    masks = GroupThreshold({first: 2.0, '*': -1.0})(scores, GRAPH, Context())
    assert masks.kept(first) == 1
    assert masks.kept(last) == GRAPH.groups[last].size


def test_limits_come_first() -> None:
    graph = easypruner.trace(Plain(), example_inputs(), limits=Limits(min_units=3, round_to=4))
    scores = easypruner.Scores({n: torch.linspace(0, 1, g.size) for n, g in graph.groups.items()})
    masks = GroupThreshold({'*': 0.9})(scores, graph, Context())
    assert {masks.kept(name) for name in masks} == {4}


@pytest.mark.parametrize(
    ('values', 'text'),
    [
        ({}, 'expected a dict of group -> threshold'),
        (0.1, 'expected a dict of group -> threshold'),
        ({'*': 'low'}, "values['*']='low' of GroupThreshold; expected a number"),
        ({'*': float('nan')}, "values['*']=nan of GroupThreshold; expected a number"),
    ],
)
def test_bad_values(values: object, text: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(text)):
        GroupThreshold(values)  # type: ignore[arg-type]


def test_a_pattern_that_fits_nothing_is_a_mistake() -> None:
    scores = easypruner.Scores({n: torch.ones(g.size) for n, g in GRAPH.groups.items()})
    with pytest.raises(ConfigError, match=r"values of GroupThreshold name 'body\.9'"):
        GroupThreshold({'body.9': 1.0})(scores, GRAPH, Context())
