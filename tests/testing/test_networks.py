"""The tiny networks can be pruned, and each call returns the same networks."""

from __future__ import annotations

import pytest
import torch

import easypruner
from easypruner.errors import EasyPrunerError
from easypruner.testing import NETWORKS, TinyNetwork, network, random_masks, tiny_context


@pytest.mark.parametrize('tiny', NETWORKS, ids=lambda tiny: tiny.name)
def test_the_networks_are_prunable_and_the_same_each_time(tiny: TinyNetwork) -> None:
    model, again = tiny.make(), tiny.make()
    assert torch.equal(model(tiny.inputs()), again(tiny.inputs()))
    graph = easypruner.trace(model, tiny.inputs())
    masks = random_masks(graph)
    assert masks.removed_units
    assert easypruner.verify(model, masks, tiny.inputs()).passed
    context = tiny_context(tiny)
    (first, *_) = context.some_batches(9, 'the test')
    assert context.needed('loss', 'the test')(model, first).item() > 0
    assert 0 <= context.needed('evaluate', 'the test')(model) <= 100


def test_an_unknown_network() -> None:
    with pytest.raises(EasyPrunerError, match="did you mean 'residual'"):
        network('residaul')
