"""Widths that are equal by chance: a trial must not take one of them for the other."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import easypruner
from easypruner.testing import randomized_network


class TwoGrains(nn.Module):
    """A network whose stream goes by some channels, and an inner width of its size by others."""

    def __init__(self, width: int, outer: int, inner: int) -> None:
        super().__init__()
        self.outer, self.grain = outer, inner
        self.first, self.last = nn.Linear(6, width), nn.Linear(width, 3)
        self.inner, self.back = nn.Linear(width, width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 300), nn.Linear(300, width)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x).unflatten(-1, (-1, self.outer)).softmax(-1).flatten(-2)
        h = h + self.narrow(self.wide(h).relu())
        inner = self.inner(h).unflatten(-1, (-1, self.grain)).softmax(-1)
        return self.last(h + self.back(inner.reshape(h.shape)))


@pytest.mark.parametrize('sizes', [(24, 3, 4), (60, 2, 3), (40, 2, 4), (48, 8, 4)])
def test_widths_that_are_equal_in_the_first_round_are_told_apart(
    sizes: tuple[int, int, int],
) -> None:
    model, x = randomized_network(lambda: TwoGrains(*sizes)), torch.randn(5, 6)
    graph = easypruner.trace(model, x)
    masks = {
        name: torch.arange(group.size) < max(group.size - 1 - number, 1)
        for number, (name, group) in enumerate(graph.groups.items())
    }
    easypruner.prune(model, masks, graph=graph)
    assert model(x).shape == (5, 3)
