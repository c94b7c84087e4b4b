"""Cost: exact multiply-adds and parameters, for any masks, without rebuilding."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import easypruner
from tests.graph.test_prune import random_masks
from tests.networks import NETWORKS, Plain, example, lively


def measured(model: nn.Module) -> tuple[int, int]:
    """Return multiply-adds by torch's own counter, and parameters."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(example())
    flops = counter.get_total_flops()
    assert flops % 2 == 0
    return flops // 2, sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize('build', NETWORKS)
def test_cost_is_what_torch_counts_before_and_after_pruning(build: type[nn.Module]) -> None:
    model = lively(build)
    graph = easypruner.trace(model, example())
    cost = graph.cost()
    assert (cost.macs, cost.params) == measured(model)
    masks = random_masks(model, 5)
    predicted = graph.cost(masks)
    easypruner.prune(model, masks, graph=graph)
    assert (predicted.macs, predicted.params) == measured(model)
    assert graph.cost() == predicted


def test_by_hand() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.Flatten(), nn.Linear(4 * 36, 10))
    graph = easypruner.trace(model, torch.zeros(1, 3, 8, 8))
    assert graph.cost() == easypruner.graph.Cost(
        macs=36 * 4 * 3 * 9 + 144 * 10, params=4 * 27 + 144 * 10 + 10
    )
    one = graph.cost({'0': torch.tensor([True, False, False, False])})
    assert one == easypruner.graph.Cost(macs=36 * 27 + 36 * 10, params=27 + 360 + 10)


def test_macs_grow_with_the_batch() -> None:
    one, three = (easypruner.trace(Plain(), example(n)).cost() for n in (1, 3))
    assert three.macs == 3 * one.macs and three.params == one.params


def test_an_unknown_group_is_refused() -> None:
    graph = easypruner.trace(Plain(), example())
    with pytest.raises(easypruner.errors.MaskError, match='did you mean'):
        graph.cost({'body.0.1': torch.ones(8, dtype=torch.bool)})
