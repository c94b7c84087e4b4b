"""A graph serves every instance of its architecture."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import easypruner
from easypruner.errors import TraceError
from easypruner.testing import example_inputs, random_masks, randomized_network
from easypruner.testing.networks import Plain, Residual
from tests.helpers.networks import NETWORKS, cut_randomly, traced_network


@pytest.mark.parametrize('build', NETWORKS)
def test_a_copy_is_cut_as_if_it_had_been_traced(build: type[nn.Module]) -> None:
    model = randomized_network(build)
    one, other = copy.deepcopy(model), copy.deepcopy(model)
    graph = easypruner.trace(model, example_inputs())
    masks = random_masks(graph)
    before = graph.cost()
    easypruner.prune(one, masks, graph=graph.on(one))
    easypruner.prune(other, masks, example_inputs=example_inputs())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert torch.equal(one.eval()(example_inputs()), other.eval()(example_inputs()))
    # The graph it was lent from is of the whole network still.
    assert graph.cost() == before
    easypruner.prune(model, masks, graph=graph)
    assert graph.cost() == easypruner.trace(one, example_inputs()).cost()


def test_another_architecture_is_refused() -> None:
    graph = traced_network(Plain)
    with pytest.raises(TraceError, match=r"another architecture: 'body\.0\.0\.weight'"):
        graph.on(randomized_network(Residual))
    cut = randomized_network(Plain)
    cut_randomly(cut)
    with pytest.raises(TraceError, match='another architecture'):
        graph.on(cut)


class Remembering(nn.Module):
    """Keeps its last output in an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 6), nn.Linear(6, 2)
        self.last: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.last = self.first(x)
        return self.second(self.last)


def test_what_a_pass_left_in_an_attribute_is_not_a_part_of_the_architecture() -> None:
    model, other = Remembering(), Remembering()
    with torch.no_grad():
        model(torch.rand(4, 8))
    graph = easypruner.trace(model, torch.rand(3, 8))
    easypruner.prune(other, {'first': torch.arange(6) < 2}, graph=graph.on(other))
    assert other(torch.rand(3, 8)).shape == (3, 2) and other.first.out_features == 2
