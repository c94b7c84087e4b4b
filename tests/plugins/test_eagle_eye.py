"""EagleEye: random widths under any budget; the best measured one is returned."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from easypruner_plugins.eagle_eye import EagleEye
from easypruner_plugins.macs import Macs
from easypruner_plugins.mask_file import MaskFile
from easypruner_plugins.params import Params
from easypruner_plugins.random_source import Random
from easypruner_plugins.ratio import Ratio
from easypruner_plugins.threshold import Threshold
from torch import nn

import easypruner
from easypruner import Context, Masks
from easypruner.errors import ConfigError, EasyPrunerError
from easypruner.graph import ChannelGraph
from easypruner.plugins import load_plugins
from easypruner.plugins.registry import MASK_SOURCES, build
from easypruner.testing import example_inputs, randomized_network, tiny_context
from easypruner.testing.networks import Residual
from tests.helpers.edge_cases import check_edge_cases
from tests.helpers.networks import NETWORKS, traced_network
from tests.helpers.searching import (
    check_resume,
    known_loss,
    loss_least_at_seven,
    plain_graph,
    widths_of,
)


@pytest.mark.parametrize('seed', range(5))
def test_the_best_measured_candidate_wins(seed: int) -> None:
    context, loss = known_loss(loss_least_at_seven)
    source = EagleEye(Macs(keep=0.5), candidates=20, tolerance=1, seed=seed, batches=1)
    masks = source.select(plain_graph(), context)
    assert len(set(loss.asked)) == len(loss.asked) > 3, 'equal candidates are measured once'
    assert widths_of(masks) == min(loss.asked, key=loss_least_at_seven)


def test_candidates_are_spread_over_what_the_budget_allows() -> None:
    graph = plain_graph()
    context, loss = known_loss(loss_least_at_seven)
    masks = EagleEye(Macs(keep=0.6), candidates=200, tolerance=1, max_removed=1).select(
        graph, context
    )
    assert {first for first, _ in loss.asked} >= set(range(4, 9))
    assert graph.cost(masks).macs <= 0.6 * graph.cost().macs


def test_the_first_candidate_loses_the_same_share_of_each_group() -> None:
    context, loss = known_loss(loss_least_at_seven)
    masks = EagleEye(Ratio(keep=0.5), candidates=1).select(plain_graph(), context)
    assert widths_of(masks) == (4, 6) and not loss.asked
    EagleEye(Ratio(keep=0.5), candidates=4).select(plain_graph(), context)
    assert loss.asked[0] == (4, 6)


def test_no_group_loses_more_than_the_maximum_where_others_can() -> None:
    context, loss = known_loss(loss_least_at_seven)
    EagleEye(Ratio(keep=0.6), candidates=60, max_removed=0.5).select(plain_graph(), context)
    assert len(set(loss.asked)) > 2
    assert all(first >= 4 and second >= 6 for first, second in loss.asked)
    masks = EagleEye(Ratio(keep=0.2), candidates=3, max_removed=0.5).select(plain_graph(), context)
    assert sum(widths_of(masks)) == 4


class Coarse(Macs):
    """A budget that misses its limit where the first layer is narrow."""

    def delivered(self, masks: Masks, graph: ChannelGraph) -> float:
        if all(bool(mask.all()) for mask in masks.values()):
            return 1.0
        return self.asked - {True: 0.25, False: 0.2}[masks.kept('body.0.0') < 6]


@pytest.mark.parametrize(('tolerance', 'all_near'), [(0.01, False), (0.06, True)])
def test_candidates_far_from_the_limit_are_skipped(tolerance: float, all_near: bool) -> None:
    context, loss = known_loss(lambda widths: float(widths[0]))
    EagleEye(Coarse(keep=0.6), candidates=40, tolerance=tolerance).select(plain_graph(), context)
    firsts = {first for first, _ in loss.asked}
    assert max(firsts) >= 6 and (min(firsts) < 6) == all_near


class Met(Macs):
    """A budget that all masks meet."""

    def delivered(self, masks: Masks, graph: ChannelGraph) -> float:
        return self.asked


class Noisy(Coarse):
    """A budget whose error is within the noise of its measurement."""

    @property
    def spread(self) -> float:
        return 0.13


@pytest.mark.parametrize(
    ('budget', 'all_near'),
    [([Coarse(keep=0.6), Met(keep=0.6)], True), ([Coarse(keep=0.6)] * 2, False),
     (Noisy(keep=0.6), True)],
)  # fmt: skip
def test_the_limit_that_binds_counts_and_noise_does_not(budget: Any, all_near: bool) -> None:
    context, loss = known_loss(lambda widths: float(widths[0]))
    EagleEye(budget, candidates=40).select(plain_graph(), context)
    assert (min(first for first, _ in loss.asked) < 6) == all_near


def test_several_limits_are_kept_to() -> None:
    context, loss = known_loss(loss_least_at_seven)
    graph = plain_graph()
    budget = [Macs(keep=0.9), Params(keep=0.5)]
    masks = EagleEye(budget, candidates=10, tolerance=1).select(graph, context)
    assert graph.cost(masks).params <= 0.5 * graph.cost().params and loss.asked


@pytest.mark.parametrize(
    'budget', [Ratio(keep=0.5), Threshold(0.8), Macs(keep=0.5).partial(0.0, 0.5)]
)
def test_any_budget_that_ranks_groups_together_works(budget: easypruner.Budget) -> None:
    graph, (context, loss) = plain_graph(), known_loss(loss_least_at_seven)
    masks = EagleEye(budget, candidates=5, tolerance=1).select(graph, context)
    assert masks.removed_units > 0
    assert widths_of(masks) == min(loss.asked, key=loss_least_at_seven)


def test_another_source_decides_which_units_are_removed_first() -> None:
    graph, context = plain_graph(), tiny_context()
    source = Random(seed=11)
    masks = EagleEye(Ratio(keep=0.5), source, candidates=4).select(graph, context)
    for name, score in source.score(graph, context).items():
        assert score[masks[name]].min() > score[~masks[name]].max()
    norms = {
        name: graph.parameter(f'{name}.weight').detach().abs().sum((1, 2, 3))
        for name in graph.groups
    }
    masks = EagleEye(Ratio(keep=0.5), candidates=4).select(graph, context)
    for name, norm in norms.items():
        assert norm[masks[name]].min() > norm[~masks[name]].max()


def test_a_stopped_search_continues(tmp_path: Path) -> None:
    check_resume(lambda: EagleEye(Macs(keep=0.5), candidates=8, tolerance=1, batches=1), tmp_path)


def test_other_candidates_continue_from_the_same_file(tmp_path: Path) -> None:
    context, loss = known_loss(loss_least_at_seven, tmp_path)
    EagleEye(Macs(keep=0.5), candidates=5, tolerance=1, batches=1).select(plain_graph(), context)
    before = len(loss.asked)
    EagleEye(Macs(keep=0.5), candidates=9, tolerance=1, batches=1).select(plain_graph(), context)
    assert len(set(loss.asked)) == len(loss.asked) > before


def test_progress_is_that_of_candidates() -> None:
    totals = []

    def track(items: Iterable[object], total: int) -> Iterator[object]:
        totals.append(total)
        yield from items

    context, loss = known_loss(loss_least_at_seven)
    EagleEye(Macs(keep=0.5), candidates=6, batches=1).select(
        plain_graph(), replace(context, track=track)
    )
    assert totals == [len(loss.asked)]


def test_by_accuracy() -> None:
    asked = []

    def evaluate(model: nn.Module) -> float:
        asked.append(model.body[0][0].out_channels)
        return float(asked[-1])

    context = replace(tiny_context(), evaluate=evaluate, loss=None)
    source = EagleEye(Macs(keep=0.5), candidates=9, by='accuracy', tolerance=1)
    masks = source.select(plain_graph(), context)
    assert masks.kept('body.0.0') == max(asked) > min(asked)


def test_nothing_but_nan_is_an_error() -> None:
    context, _ = known_loss(lambda widths: float('nan'))
    with pytest.raises(EasyPrunerError, match='no candidate with a finite loss'):
        EagleEye(Macs(keep=0.5), candidates=3).select(plain_graph(), context)


@pytest.mark.parametrize('build', NETWORKS)
def test_chosen_masks_verify(build: type[nn.Module]) -> None:
    model = randomized_network(build)
    graph = easypruner.trace(model, example_inputs())
    masks = EagleEye(Macs(keep=0.6), candidates=3).select(graph, tiny_context())
    assert graph.cost(masks).macs <= 0.6 * graph.cost().macs
    assert easypruner.verify(model, masks, example_inputs()).error < 1e-12


def test_edge_cases() -> None:
    check_edge_cases(lambda budget: EagleEye(budget, candidates=4))


def test_it_is_built_from_a_config() -> None:
    load_plugins()
    config = dict(
        type='EagleEye',
        candidates=2,
        budget=dict(type='Macs', keep=0.5),
        source=dict(type='Random'),
    )
    masks = build(MASK_SOURCES, config).select(plain_graph(), tiny_context())
    assert masks.removed_units > 0
    graph = traced_network(Residual)
    EagleEye(Macs(keep=0.5)).dry_run(graph, Context())


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        ({'candidates': 0}, 'candidates=0 of EagleEye'),
        ({'tolerance': 2}, 'tolerance=2 of EagleEye'),
        ({'max_removed': 0}, 'max_removed=0 of EagleEye'),
        ({'by': 'acuracy'}, "did you mean 'accuracy'"),
        (
            {'source': MaskFile('masks.safetensors')},
            'source=MaskFile of EagleEye does not rank units',
        ),
        ({'source': Random(Ratio(keep=0.5))}, 'give its budget to EagleEye'),
    ],
)
def test_invalid_arguments_are_refused(arguments: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        EagleEye(**arguments)


def test_masks_do_not_depend_on_torchs_global_generator() -> None:
    graph, context = plain_graph(), tiny_context()
    first = EagleEye(Macs(keep=0.5), candidates=6, seed=3).select(graph, context)
    torch.rand(7)
    assert EagleEye(Macs(keep=0.5), candidates=6, seed=3).select(graph, context) == first
