"""MeanActivation against the mean of magnitudes, added up one by one."""

from __future__ import annotations

import pytest
import torch
from easypruner_plugins.macs import Macs
from easypruner_plugins.mean_activation import MeanActivation
from torch import Tensor, nn

import easypruner
from easypruner.errors import ConfigError
from easypruner.testing import example_inputs, randomized_network, tiny_batches, tiny_context
from easypruner.testing.networks import Plain, Residual
from tests.helpers.edge_cases import check_edge_cases
from tests.helpers.networks import NETWORKS


def formula(maps: list[Tensor], channel: int) -> float:
    """Return the mean magnitude."""
    values = [
        abs(value)
        for batch in maps
        for sample in batch
        for value in sample[channel].flatten().tolist()
    ]
    return sum(values) / len(values)


@torch.no_grad()
def test_the_formula_over_samples_and_positions() -> None:
    model = randomized_network(Residual)
    scores = MeanActivation(batches=2).score(
        easypruner.trace(model, example_inputs()), tiny_context()
    )
    batches = [images for images, _ in tiny_batches(2)]
    before = [model.stem(images) for images in batches]
    after = [torch.relu(x + model.branch(x)).mean((2, 3)) for x in before]
    for layer, maps in enumerate((before, after)):
        for channel in range(8):
            actual = float(scores['stem.0'][layer, channel])
            assert actual == pytest.approx(formula(maps, channel), rel=1e-5)
    inner = [model.branch[0](x) for x in before]
    for channel in range(6):
        actual = float(scores['branch.0.0'][0, channel])
        assert actual == pytest.approx(formula(inner, channel), rel=1e-5)


def test_a_silent_unit_is_removed_first() -> None:
    model = randomized_network(Plain)
    with torch.no_grad():
        model.body[0][1].weight[5], model.body[0][1].bias[5] = 0, -1
    graph = easypruner.trace(model, example_inputs())
    assert float(MeanActivation().score(graph, tiny_context())['body.0.0'][0, 5]) == 0
    masks = MeanActivation(Macs(keep=0.9)).select(graph, tiny_context())
    assert not masks['body.0.0'][5]


@pytest.mark.parametrize('build', NETWORKS)
def test_chosen_masks_verify(build: type[nn.Module]) -> None:
    model = randomized_network(build)
    graph = easypruner.trace(model, example_inputs())
    masks = MeanActivation(Macs(keep=0.6), batches=1).select(graph, tiny_context())
    assert set(masks) == set(graph.groups)
    assert easypruner.verify(model, masks, example_inputs()).error < 1e-12


def test_edge_cases() -> None:
    check_edge_cases(lambda budget: MeanActivation(budget, batches=1))


def test_invalid_arguments_are_refused() -> None:
    with pytest.raises(ConfigError, match='batches=0 of MeanActivation'):
        MeanActivation(batches=0)
