"""Sensitivity: the curves of layers cut one by one, and the resulting ratios."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from easypruner_plugins.macs import Macs
from easypruner_plugins.random_source import Random
from easypruner_plugins.ratio import Ratio
from easypruner_plugins.sensitivity import Sensitivity
from easypruner_plugins.threshold import Threshold
from torch import nn

import easypruner
from easypruner import Context
from easypruner.errors import ConfigError, EasyPrunerError
from easypruner.graph import ChannelGraph
from easypruner.testing import example_inputs, randomized_network, tiny_context
from easypruner.testing.networks import Residual
from tests.helpers.edge_cases import check_edge_cases
from tests.helpers.networks import NETWORKS, traced_network
from tests.helpers.searching import check_resume, known_loss, plain_graph, widths_of


def losses(graph: ChannelGraph, context: Context, group: str, order: list[int]) -> list[float]:
    """Return the loss without the first 0, 1, 2, ... units of an order."""
    found = []
    for gone in range(len(order)):
        model = copy.deepcopy(graph.model)
        mask = torch.ones(len(order), dtype=torch.bool)
        for unit in order[:gone]:
            mask[unit] = False
        easypruner.prune(model, {group: mask}, example_inputs=example_inputs())
        with torch.no_grad():
            each = [float(context.loss(model, batch)) for batch in context.batches()]
        found.append(sum(each) / len(each))
    return found


def in_steps(size: int, steps: int) -> Iterator[int]:
    """Yield the number of removed units at each step, each number once."""
    last = 0
    for step in range(1, steps + 1):
        gone = round(size * step / (steps + 1))
        if last < gone < size:
            yield gone
            last = gone


@pytest.mark.parametrize('steps', [1, 3, 9])
def test_a_unit_scores_the_loss_of_removing_all_up_to_it(steps: int) -> None:
    graph = traced_network(Residual)
    context, source = tiny_context(), Random(seed=4)
    scores = Sensitivity(source=source, steps=steps).score(graph, context)
    for name, ranks in source.score(graph, context).items():
        order = ranks.argsort().tolist()
        curve = losses(graph, context, name, order)
        highest = 0.0
        measured = list(in_steps(len(order), steps))
        for gone in measured:
            highest = max(highest, curve[gone] - curve[0])
            assert float(scores[name][order[gone - 1]]) == pytest.approx(highest, abs=1e-5)
        along = [float(scores[name][unit]) for unit in order]
        assert all(a < b for a, b in pairwise(along))


def test_between_steps_the_curve_is_linear_and_continues_after_the_last() -> None:
    context, _ = known_loss(lambda widths: float((8 - widths[0]) ** 2))
    scores = Sensitivity(steps=3).score(plain_graph(), context)
    actual = scores['body.0.0'].sort().values
    expected = torch.tensor([2.0, 4.0, 10.0, 16.0, 26.0, 36.0, 46.0, 56.0]).double()
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def test_a_curve_never_falls_and_gains_count_as_no_loss() -> None:
    wave = {8: 0.0, 7: -5.0, 6: 3.0, 5: 1.0, 4: 2.0, 3: 7.0, 2: 7.0, 1: 9.0}
    context, _ = known_loss(lambda widths: wave[widths[0]])
    actual = Sensitivity(steps=7).score(plain_graph(), context)['body.0.0'].sort().values
    expected = torch.tensor([0.0, 3.0, 3.0, 3.0, 7.0, 7.0, 9.0, 11.0]).double()
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
    assert bool((actual.diff() > 0).all())


def test_a_layer_that_does_not_matter_is_cut_first() -> None:
    context, _ = known_loss(lambda widths: 10.0 * (8 - widths[0]))
    masks = Sensitivity(Ratio(keep=0.5)).select(plain_graph(), context)
    assert widths_of(masks) == (8, 2)
    context, _ = known_loss(lambda widths: 10.0 * (12 - widths[1]))
    masks = Sensitivity(Macs(keep=0.5)).select(plain_graph(), context)
    assert masks.kept('body.1.0') == 12 and masks.kept('body.0.0') < 8


def test_a_threshold_is_the_most_each_layer_may_lose() -> None:
    context, _ = known_loss(lambda widths: 1.0 * (8 - widths[0]) + 0.5 * (12 - widths[1]))
    masks = Sensitivity(Threshold(3.01), steps=30).select(plain_graph(), context)
    assert widths_of(masks) == (5, 6)


def test_by_accuracy_it_is_the_drop() -> None:
    context = replace(
        tiny_context(), evaluate=lambda model: 90.0 + model.body[0][0].out_channels, loss=None
    )
    scores = Sensitivity(by='accuracy', steps=20).score(plain_graph(), context)['body.0.0']
    expected = torch.arange(1, 9).double()
    torch.testing.assert_close(scores.sort().values, expected, rtol=1e-4, atol=1e-4)


def test_a_stopped_analysis_continues(tmp_path: Path) -> None:
    check_resume(lambda: Sensitivity(Macs(keep=0.5), steps=3, batches=1), tmp_path)


def test_nan_losses_name_the_group() -> None:
    context, _ = known_loss(lambda widths: float('nan') if widths[1] < 9 else 1.0)
    with pytest.raises(
        EasyPrunerError, match=r"units of group 'body\.1\.0' is not a finite number"
    ):
        Sensitivity(Ratio(keep=0.5)).select(plain_graph(), context)
    context, _ = known_loss(lambda widths: float('nan'))
    with pytest.raises(EasyPrunerError, match='loss of the whole network is not a finite number'):
        Sensitivity(Ratio(keep=0.5)).select(plain_graph(), context)


@pytest.mark.parametrize('build', NETWORKS)
def test_chosen_masks_verify(build: type[nn.Module]) -> None:
    model = randomized_network(build)
    graph = easypruner.trace(model, example_inputs())
    source = Sensitivity(Macs(keep=0.6), steps=2, calibration_batches=1)
    masks = source.select(graph, tiny_context())
    assert graph.cost(masks).macs <= 0.6 * graph.cost().macs
    assert easypruner.verify(model, masks, example_inputs()).error < 1e-12


def test_edge_cases() -> None:
    check_edge_cases(lambda budget: Sensitivity(budget, steps=2))


def test_invalid_arguments_are_refused() -> None:
    with pytest.raises(ConfigError, match='steps=0 of Sensitivity'):
        Sensitivity(steps=0)
