"""Which groups are at fault: not those whose cut fails later only, where a tie helps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import easypruner
from easypruner.testing import randomized_network


class ExtraTokens(nn.Module):
    """A network that drops its extra tokens by their number, and then needs a tie."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.inner, self.last = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.extra = nn.Parameter(torch.randn(1, 2, 8))

    def forward(self, x: Tensor) -> Tensor:
        tokens = torch.cat([self.extra.expand(len(x), -1, -1), self.embed(x)], 1).softmax(1)
        tokens = tokens[:, 2:]
        return self.last(self.inner(tokens).reshape(tokens.shape))


def test_only_the_groups_at_fault_are_frozen() -> None:
    model, x = randomized_network(ExtraTokens), torch.randn(2, 5, 6)
    graph = easypruner.trace(model, x)
    tokens = [each.reason for each in graph.frozen if (each.param, each.dim) == ('extra', 1)]
    assert 'tokens = tokens[:, 2:]' in tokens[0]
    (group,) = graph.groups.values()
    assert {member.param for member in group.members} >= {'embed.weight', 'inner.weight'}
    masks = {group.name: torch.arange(8) < 5}
    assert easypruner.verify(model, masks, x, graph=graph).passed
