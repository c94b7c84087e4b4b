"""Random code between layers that reads widths: each cut is exact, or refused, or said to mix."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

import easypruner
from easypruner.errors import MaskError
from easypruner.testing import randomized_network


def width(x: Tensor) -> int:
    """Return the width of the channels."""
    return x.shape[-1]


CODE: dict[str, Callable[[Tensor], Tensor]] = {
    'halves': lambda x: torch.cat([x[..., width(x) // 2 :], x[..., : width(x) // 2]], -1),
    'gate': lambda x: functional.glu(x, -1),
    'twice': lambda x: torch.cat([x, x.relu()], -1),
    'pad': lambda x: functional.pad(x, (0, width(x) // 2)),
    'scale': lambda x: x / math.log(width(x) + 1),
    'fill': lambda x: x + x.new_full((1, 1, width(x)), width(x) / 4),
    'even': lambda x: x if width(x) % 2 == 0 else x.tanh(),
    'wide': lambda x: x.relu() if width(x) > 7 else x,
    'norm': lambda x: functional.layer_norm(x, (width(x),)),
    'pairs': lambda x: x.view(*x.shape[:-1], width(x) // 2, 2).mT.reshape(x.shape),
    'quarters': lambda x: x.reshape(*x.shape[:-1], -1, 4).relu().flatten(-2),
    'sum of parts': lambda x: sum(x.chunk(2, -1), start=torch.zeros(())),
    'every second': lambda x: x[..., ::2] + x[..., 1::2],
    'first': lambda x: x[..., :4],
    'roll': lambda x: x.roll(width(x) // 2, -1),
    'ones': lambda x: x * torch.ones(width(x)),
    'mean': lambda x: x + x.mean(-1, keepdim=True),
    'repeat': lambda x: x.repeat(1, 1, 2),
    'splits': lambda x: torch.cat([part.relu() for part in torch.split(x, width(x) // 2, -1)], -1),
    'attention': lambda x: functional.scaled_dot_product_attention(x, x, x),
    'stack': lambda x: torch.stack([x, x.tanh()], -2).flatten(-2),
    'unfold': lambda x: x.unfold(-1, 2, 2).sum(-1),
    'matrix': lambda x: x @ torch.ones(width(x), width(x)).triu(),
}


class Coded(nn.Module):
    """Layers with code after each of them."""

    def __init__(self, names: list[list[str]], widths: list[int]) -> None:
        super().__init__()
        self.names, self.layers = names, nn.ModuleList()
        x = torch.ones(2, 5, 6)
        for own, size in zip(names, widths, strict=False):
            self.layers.append(nn.Linear(width(x), size))
            x = self.run(own, self.layers[-1](x))
        self.head = nn.Linear(width(x), 3)

    def run(self, names: list[str], x: Tensor) -> Tensor:
        for name in names:
            x = CODE[name](x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        for layer, names in zip(self.layers, self.names, strict=True):
            x = self.run(names, layer(x))
        return self.head(x)


names = st.lists(st.sampled_from(sorted(CODE)), min_size=1, max_size=3)
parts = st.lists(names, min_size=1, max_size=3)


def check(names: list[list[str]], widths: list[int], seed: int) -> None:
    """Cut a network in several ways; each must be exact or refused with a reason."""
    try:
        net = randomized_network(lambda: Coded(names, widths))
    except RuntimeError:  # the code does not run with these widths
        return
    x = torch.randn(2, 5, 6)
    graph = easypruner.trace(net, x)
    draw = torch.Generator().manual_seed(seed)
    for share in (0.3, 0.7):
        masks = {n: torch.rand(g.size, generator=draw) < share for n, g in graph.groups.items()}
        for mask in masks.values():
            mask[0] = True
        try:
            assert not easypruner.verify(net, masks, x, graph=graph).failed
        except MaskError as error:
            assert 'depends on widths' in str(error) or 'forward pass fails' in str(error)
            return
        easypruner.prune(net, masks, graph=graph)
        assert net(x).shape == (2, 5, 3)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(parts, st.lists(st.sampled_from([8, 12, 16]), min_size=3, max_size=3), st.integers(0, 99))
def test_each_cut_of_random_code_is_exact_or_refused(
    names: list[list[str]], widths: list[int], seed: int
) -> None:
    check(names, widths, seed)


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(parts, st.lists(st.sampled_from([8, 12, 16]), min_size=3, max_size=3), st.integers(0, 99))
def test_each_cut_of_much_random_code_is_exact_or_refused(
    names: list[list[str]], widths: list[int], seed: int
) -> None:
    check(names, widths, seed)
