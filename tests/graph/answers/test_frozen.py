"""Reasons to stay: each names the operation that couples channels with what has no channels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import easypruner
from easypruner.testing import randomized_network


class Square(nn.Module):
    """A network that adds channels to rows of an image, of which there are equally many."""

    def __init__(self, returned: bool) -> None:
        super().__init__()
        self.first, self.last, self.returned = nn.Conv2d(3, 5, 3), nn.Conv2d(5, 4, 1), returned

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.first(x).relu()
        return self.last(h + h.transpose(1, 2)), h if self.returned else x


@pytest.mark.parametrize('returned', [False, True])
def test_an_extent_counts_as_the_reason_if_there_is_no_other(returned: bool) -> None:
    model = randomized_network(lambda: Square(returned))
    graph = easypruner.trace(model, torch.randn(2, 3, 7, 7))
    reasons = {each.param: each.reason for each in graph.frozen if each.dim == 0}
    extent = 'a spatial, batch or sequence extent, which no parameter decides'
    held_by = 'an output of the model ([1])' if returned else f'{extent}: add in the model itself'
    assert reasons['first.weight'] == held_by
    assert reasons['first.bias'] == held_by
