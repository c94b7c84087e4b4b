"""A graph serves every instance of its architecture."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import easypruner
from easypruner.errors import TraceError
from tests.graph.test_prune import random_masks
from tests.helpers.networks import NETWORKS, Plain, Residual, example, lively


@pytest.mark.parametrize('build', NETWORKS)
def test_a_copy_is_cut_as_if_it_had_been_traced(build: type[nn.Module]) -> None:
    model = lively(build)
    one, other = copy.deepcopy(model), copy.deepcopy(model)
    graph = easypruner.trace(model, example())
    masks = random_masks(model, 0)
    before = graph.cost()
    easypruner.prune(one, masks, graph=graph.on(one))
    easypruner.prune(other, masks, example_inputs=example())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert torch.equal(one.eval()(example()), other.eval()(example()))
    # The graph it was lent from is of the whole network still.
    assert graph.cost() == before
    easypruner.prune(model, masks, graph=graph)
    assert graph.cost() == easypruner.trace(one, example()).cost()


def test_another_architecture_is_refused() -> None:
    graph = easypruner.trace(lively(Plain), example())
    with pytest.raises(TraceError, match=r"another architecture: 'body\.0\.0\.weight'"):
        graph.on(lively(Residual))
    cut = lively(Plain)
    easypruner.prune(cut, random_masks(cut, 0), example_inputs=example())
    with pytest.raises(TraceError, match='another architecture'):
        graph.on(cut)
