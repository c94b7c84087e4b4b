"""OptimalThreshold against the paper's loop: discard from below while the share is kept."""

from __future__ import annotations

import math

import pytest
import torch
from easypruner_plugins.optimal_threshold import OptimalThreshold
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import easypruner
from easypruner import Context, Limits
from easypruner.errors import ConfigError, EasyPrunerError
from easypruner.graph import ChannelGraph
from easypruner.testing import example_inputs, randomized_network
from easypruner.testing.networks import Plain
from tests.helpers.networks import traced_network

GRAPH = traced_network(Plain)
SMALL, LARGE = GRAPH.groups


def scores_of(first: Tensor, second: Tensor | None = None) -> dict[str, Tensor]:
    return {SMALL: first, LARGE: torch.ones(12) if second is None else second}


def masks_of(
    share: float, scores: dict[str, Tensor], graph: ChannelGraph = GRAPH
) -> easypruner.Masks:
    return OptimalThreshold(share)(scores, graph, Context())


def discarded(score: list[float], share: float) -> set[int]:
    """Return the removed units, by the paper's algorithm."""
    energy = sum(value * value for value in score)
    order = sorted(range(len(score)), key=lambda unit: score[unit])
    lost, gone = 0.0, set()
    for unit in order:
        lost += score[unit] ** 2
        if lost / energy > share:
            break
        gone.add(unit)
    return gone


@given(
    st.lists(st.floats(2**-10, 1024, width=32), min_size=8, max_size=8, unique=True),
    st.floats(1e-6, 0.9),
)
def test_the_lowest_are_removed_while_their_energy_is_within_the_share(
    values: list[float], share: float
) -> None:
    budget = OptimalThreshold(share)
    scores = scores_of(torch.tensor(values, dtype=torch.float64))
    masks = budget(scores, GRAPH, Context())
    gone = set((~masks[SMALL]).nonzero().flatten().tolist())
    assert gone == discarded(values, share)
    lost = [
        sum(float(s) ** 2 for s, kept in zip(scores[n], masks[n], strict=True) if not kept)
        / sum(float(s) ** 2 for s in scores[n])
        for n in scores
    ]
    assert budget.delivered(masks, GRAPH) == pytest.approx(max(lost))
    assert budget.delivered(masks, GRAPH) <= budget.asked == share


def test_each_group_has_its_own_threshold_whatever_its_scale() -> None:
    first = torch.tensor([1.0, 1, 1, 1, 1e-3, 1e-3, 1, 1])
    second = torch.full((12,), 1e-6)
    second[3] = 1e-9
    masks = masks_of(1e-4, scores_of(first, second))
    assert (~masks[SMALL]).nonzero().flatten().tolist() == [4, 5]
    assert (~masks[LARGE]).nonzero().flatten().tolist() == [3]


def test_equal_scores_lose_as_many_as_the_share_has_room_for() -> None:
    masks = masks_of(0.3, scores_of(torch.ones(8)))
    assert masks.kept(SMALL) == 8 - math.floor(0.3 * 8)
    assert masks_of(1e-4, scores_of(torch.ones(8))).removed_units == 0


@pytest.mark.parametrize(('share', 'kept'), [(0.0, [8, 12]), (1.0, [1, 1])])
def test_shares_of_nothing_and_of_all(share: float, kept: list[int]) -> None:
    masks = masks_of(share, scores_of(torch.arange(1.0, 9)))
    assert [masks.kept(name) for name in masks] == kept


def test_units_without_energy_are_removed_and_one_always_stays() -> None:
    masks = masks_of(1e-4, scores_of(torch.tensor([0.0, 2, 0, -3, 5, 1, 1, 1]), torch.zeros(12)))
    assert (~masks[SMALL]).nonzero().flatten().tolist() == [0, 2, 3]
    assert masks.kept(LARGE) == 1


def test_units_of_infinite_score_stay_and_hide_no_other() -> None:
    score = torch.tensor([float('inf'), 1, 1e-4, 1, 1, 1, -float('inf'), 1])
    masks = masks_of(1e-4, scores_of(score))
    assert (~masks[SMALL]).nonzero().flatten().tolist() == [2, 6]


def test_squares_out_of_range_do_not_matter() -> None:
    for scale in (1e200, 1e-200):
        masks = masks_of(
            0.02, scores_of(torch.tensor([1.0, 1, 1, 1, 1, 1, 0.1, 1]).double() * scale)
        )
        assert (~masks[SMALL]).nonzero().flatten().tolist() == [6]


def test_limits_of_groups_are_kept_to() -> None:
    graph = traced_network(Plain, limits=Limits(min_units=4, round_to=4))
    masks = masks_of(1.0, scores_of(torch.arange(1.0, 9)), graph)
    assert [masks.kept(name) for name in masks] == [4, 4]


def test_some_groups_only_and_none() -> None:
    masks = masks_of(0.5, {SMALL: torch.arange(8.0)})
    assert list(masks) == [SMALL]
    budget = OptimalThreshold()
    assert len(budget({}, GRAPH, Context())) == 0
    assert budget.delivered(easypruner.Masks(), GRAPH) == 0.0


def test_a_group_of_one_unit_stays() -> None:
    model = randomized_network(Plain)
    graph = easypruner.trace(model, example_inputs())
    easypruner.prune(model, {SMALL: torch.arange(8) < 1}, graph=graph)
    masks = OptimalThreshold(1.0)({SMALL: torch.zeros(1)}, graph, Context())
    assert masks[SMALL].tolist() == [True]


def test_in_steps_no_step_loses_more_than_the_share() -> None:
    model = randomized_network(Plain)
    graph = easypruner.trace(model, example_inputs())
    generator = torch.Generator().manual_seed(0)
    scores = {n: torch.rand(g.size, generator=generator) ** 4 for n, g in graph.groups.items()}
    at_once = OptimalThreshold(0.01)(scores, graph, Context()).removed_units
    removed = []
    for done, share in ((0.0, 0.5), (0.5, 1.0)):
        budget = OptimalThreshold(0.01).partial(done, share)
        masks = budget(scores, graph, Context())
        assert budget.delivered(masks, graph) <= budget.asked == 0.01
        removed.append(masks.removed_units)
        easypruner.prune(model, masks, graph=graph)
        scores = {name: score[masks[name]] for name, score in scores.items()}
    assert 0 < removed[0] < at_once <= sum(removed)


def test_units_without_scores_are_an_error() -> None:
    masks = easypruner.Masks({SMALL: torch.ones(8, dtype=torch.bool)})
    with pytest.raises(EasyPrunerError, match=f'not know the scores of group {SMALL!r}'):
        OptimalThreshold().delivered(masks, GRAPH)


@pytest.mark.parametrize('share', [-0.1, 1.1, float('nan'), True, '1e-4'])
def test_a_value_that_is_not_a_share_is_refused(share: object) -> None:
    with pytest.raises(ConfigError, match='share='):
        OptimalThreshold(share)
