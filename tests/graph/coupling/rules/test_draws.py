"""Random numbers: a network with fewer channels draws others, so that its channels are mixed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import easypruner
from easypruner.testing import randomized_network

Function = Callable[[Tensor], Tensor]


class Noisy(nn.Module):
    """A function that draws random numbers, between two layers."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function
        self.first, self.last = nn.Linear(6, 9), nn.Linear(9, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(self.first(x)).tanh())


MIXED: dict[str, Function] = {
    'randn_like': lambda h: h + torch.randn_like(h),
    'randn': lambda h: h * torch.randn(h.shape[-1]),
    'rand': lambda h: h + torch.rand(h.shape),
    'normal_': lambda h: h + torch.empty_like(h).normal_(),
    'normal': lambda h: torch.normal(h, torch.ones_like(h)),
    'bernoulli': lambda h: h * torch.bernoulli(h.sigmoid()),
}

KEPT: dict[str, Function] = {
    'dropout': lambda h: functional.dropout(h, 0.5, True),
    'a number of each row': lambda h: h * torch.randn(h.shape[0], 1),
}


@pytest.mark.parametrize('name', [*MIXED, *KEPT])
def test_random_numbers_of_channels_mix_them(name: str) -> None:
    model = randomized_network(lambda: Noisy({**MIXED, **KEPT}[name]))
    x = torch.randn(5, 6)
    graph = easypruner.trace(model, x)
    (group,) = graph.groups.values()
    expected = (f'{name} in the model itself',) if name in MIXED else ()
    assert group.mixed == expected
    masks = {group.name: torch.arange(9) % 2 == 0}
    checked = easypruner.verify(model, masks, x, graph=graph)
    assert checked.passed and bool(checked.unchecked) == (name in MIXED)
