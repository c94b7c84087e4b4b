"""Templates: what code takes the shape of keeps no channel; what it reads a value of does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import easypruner
from easypruner.testing import example_inputs, randomized_network


class Timed(nn.Module):
    """Adds a channel that tells the time, as a network that is integrated over time does."""

    def __init__(self, make: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.make = make
        self.stem, self.step, self.head = (
            nn.Conv2d(3, 8, 1),
            nn.Conv2d(9, 8, 1),
            nn.Conv2d(8, 5, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for time in range(2):
            x = x + self.step(torch.cat([self.make(x) * time, x], 1))
        return self.head(x)


@pytest.mark.parametrize(
    'make',
    [
        lambda x: torch.ones_like(x[:, :1]),
        lambda x: torch.zeros_like(x[:, -1:]) + 2,
        lambda x: x[:, 0].new_ones(x[:, 0].shape)[:, None],
        lambda x: torch.full_like(x.relu().select(1, -1).unsqueeze(1), 0.5),
    ],
)
def test_channels_of_a_template_go(make: Callable[[Tensor], Tensor]) -> None:
    model = randomized_network(lambda: Timed(make))
    graph = easypruner.trace(model, example_inputs())
    assert graph.groups['stem'].size == 8
    masks = {'stem': torch.tensor([False, True] * 4)}
    assert easypruner.verify(model, masks, example_inputs(), graph=graph).error < 1e-12
    easypruner.prune(model, masks, graph=graph)
    assert model(example_inputs()).shape[1] == 5


def written(x: Tensor) -> Tensor:
    made = torch.empty_like(x[:, :1])
    torch.mul(x[:, :1], 2, out=made)
    return made


@pytest.mark.parametrize(
    'make',
    [
        lambda x: torch.ones_like(x[:, :1]) * x[:, :1].mean(),
        lambda x: x[:, :1],
        lambda x: torch.ones_like(x[:, 3:4]),
        lambda x: torch.ones_like(x[:, :1]).copy_(x[:, :1]),
        written,
    ],
)
def test_a_channel_of_which_a_value_or_the_position_counts_stays(
    make: Callable[[Tensor], Tensor],
) -> None:
    graph = easypruner.trace(randomized_network(lambda: Timed(make)), example_inputs())
    assert 'stem' not in graph.groups
    (reason,) = {e.reason for e in graph.frozen if (e.param, e.dim) == ('stem.weight', 0)}
    assert reason.startswith('one channel is picked by its position')
