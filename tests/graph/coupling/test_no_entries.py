"""Tensors without entries: the width of no tokens goes with the width of the others."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import easypruner
from easypruner.testing import randomized_network


class NoExtraTokens(nn.Module):
    """A network that appends its extra tokens, of which a config gives it none, and a memory."""

    memory: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 9), nn.Linear(9, 4)
        self.extra = nn.Parameter(torch.zeros(1, 0, 9))
        self.register_buffer('memory', torch.empty(0))

    def forward(self, x: Tensor) -> Tensor:
        tokens = torch.cat([self.extra.expand(len(x), -1, -1), self.first(x)], 1)
        if self.memory.numel() > 0:
            tokens = tokens + self.memory
        return self.last(tokens.relu()).mean(1)


def test_the_width_of_no_tokens_goes_with_that_of_the_others() -> None:
    model, x = randomized_network(NoExtraTokens), torch.randn(2, 5, 6)
    graph = easypruner.trace(model, x)
    (name,) = graph.groups
    masks = {name: torch.arange(9) < 5}
    assert easypruner.verify(model, masks, x, graph=graph).passed
    easypruner.prune(model, masks, graph=graph)
    assert model.extra.shape == (1, 0, 5)
    assert model(x).shape == (2, 4)
