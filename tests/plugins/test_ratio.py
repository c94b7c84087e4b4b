"""Ratio where groups have limits: the distance from the requested share, and its report."""

from __future__ import annotations

import copy

import pytest
import torch
from easypruner_plugins.fpgm import FPGM
from easypruner_plugins.lp_norm import L1Norm
from easypruner_plugins.ratio import Ratio
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import easypruner
from easypruner import Context, Limits, Masks
from easypruner.errors import BudgetError
from easypruner.graph import ChannelGraph
from easypruner.testing import example_inputs

WIDTHS = (16,) * 10
UNEVEN = (16, 20, 7, 24, 1, 12)


def chain(widths: tuple[int, ...] = WIDTHS, limits: Limits | None = None) -> ChannelGraph:
    """Return the graph of convolutions one after the other, each a group, at two extents."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for number, (before, after) in enumerate(zip((3, *widths), widths, strict=False)):
        layers += [nn.Conv2d(before, after, 1), nn.ReLU()]
        if number == len(widths) // 2:
            layers.append(nn.MaxPool2d(2))
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 2))
    return easypruner.trace(model.eval(), example_inputs(), limits=limits)


GRAPHS = {
    (widths, step): chain(widths, Limits(round_to=step))
    for widths in (WIDTHS, UNEVEN)
    for step in (1, 3, 4, 8)
}


def scores_of(graph: ChannelGraph, seed: int, levels: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randint(levels, (group.size,), generator=generator) / levels
        for name, group in graph.groups.items()
    }


def kept_of(masks: Masks) -> int:
    return sum(masks.kept(name) for name in masks)


def wider(graph: ChannelGraph, masks: Masks) -> list[int]:
    """Return how many more units each group would keep with its next allowed width."""
    steps = []
    for name, group in graph.groups.items():
        kept = masks.kept(name)
        widths = [w for w in graph.limits[name].widths(group.size) if w > kept]
        steps += [widths[0] - kept] if widths else []
    return steps


graphs = st.sampled_from(list(GRAPHS.values()))
seeds = st.integers(0, 10**6)
levels = st.sampled_from([1, 3, 1000])


@settings(deadline=None, max_examples=80)
@given(graph=graphs, seed=seeds, levels=levels, keep=st.floats(0.05, 1))
def test_at_most_the_requested_share_stays_and_one_more_step_would_exceed_it(
    graph: ChannelGraph, seed: int, levels: int, keep: float
) -> None:
    units = sum(group.size for group in graph.groups.values())
    least = sum(graph.limits[n].widths(g.size)[0] for n, g in graph.groups.items())
    scores = scores_of(graph, seed, levels)
    asked = round(keep * units)
    if asked < least:
        with pytest.raises(BudgetError, match=f'keep={least / units:.4f} is the lowest possible'):
            Ratio(keep)(scores, graph, Context())
        return
    masks = Ratio(keep)(scores, graph, Context())
    assert kept_of(masks) <= asked
    assert all(kept_of(masks) + step > asked for step in wider(graph, masks))
    for name, mask in masks.items():
        assert masks.kept(name) in graph.limits[name].widths(mask.numel())
        assert bool(mask.all()) or scores[name][~mask].max() <= scores[name][mask].min()


@settings(deadline=None, max_examples=40)
@given(
    step=st.sampled_from([1, 4, 8]), seed=seeds, levels=levels, keep=st.floats(0, 1),
    scope=st.sampled_from(['stage', 'isomorphic']),
)  # fmt: skip
def test_each_scope_keeps_the_nearest_allowed_number(
    step: int, seed: int, levels: int, keep: float, scope: str
) -> None:
    graph = GRAPHS[WIDTHS, step]
    masks = Ratio(keep, scope=scope)(scores_of(graph, seed, levels), graph, Context())
    names = list(graph.groups)
    # They have two extents, and the first and the last layer have other parts than the others.
    apart = {'stage': [names[:6], names[6:]], 'isomorphic': [names[:-1], names[-1:]]}
    for together in apart[scope]:
        units = 16 * len(together)
        asked = max(round(keep * units), step * len(together))
        assert abs(sum(masks.kept(name) for name in together) - asked) <= step / 2


@settings(deadline=None, max_examples=25)
@given(graph=graphs, seed=seeds, keep=st.floats(0.55, 1), steps=st.integers(2, 5))
def test_in_steps_it_ends_within_one_step_of_a_group(
    graph: ChannelGraph, seed: int, keep: float, steps: int
) -> None:
    budget, units = Ratio(keep), sum(group.size for group in graph.groups.values())
    largest = max(limits.step for limits in graph.limits.values())
    reference = budget.reference(graph)
    graph = graph.on(copy.deepcopy(graph.model))
    scores = scores_of(graph, seed, 1000)
    for step in range(steps):
        part = budget.partial(step / steps, (step + 1) / steps, reference)
        masks = part(scores, graph, Context())
        scores = {name: score[masks[name]] for name, score in scores.items()}
        easypruner.prune(graph.model, masks, graph=graph)
    left = kept_of(masks)
    assert round(keep * units) - largest < left <= round(keep * units)


@pytest.mark.parametrize('keep', [0.7, 0.72, 0.8])
@pytest.mark.parametrize('source', [FPGM, L1Norm])
def test_layers_of_one_kind_end_within_a_step(source: type, keep: float) -> None:
    graph = GRAPHS[WIDTHS, 8]
    budget = Ratio(keep)
    masks = source(budget).select(graph, Context())
    assert keep - 8 / 160 < budget.delivered(masks, graph) <= keep


@pytest.mark.parametrize('scope', ['layer', 'stage', 'isomorphic', None])
def test_a_share_out_of_reach_is_shown_beside_the_requested_one(scope: str | None) -> None:
    keep = {'*': 0.2} if scope is None else 0.2
    model = chain().model
    slimmed = easypruner.slim(
        model, example_inputs(), budget=Ratio(keep, scope=scope), limits=Limits(min_units=12)
    )
    budget = slimmed.summary.budget
    assert (budget.asked, budget.delivered) == pytest.approx((0.2, 0.75))
    assert 'budget Ratio: asked 0.2, delivered 0.75' in str(slimmed)
    with pytest.raises(BudgetError, match=r'keep=0\.7500 is the lowest possible'):
        easypruner.slim(model, example_inputs(), budget=Ratio(0.2), limits=Limits(min_units=12))
