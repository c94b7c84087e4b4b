"""Buffers into which a pass writes, and parameters of which it reads a part."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

import easypruner
from easypruner.testing import random_masks, randomized_network

HEADS, WIDTH, STEPS = 4, 8, 10


class Cached(nn.Module):
    """An attention whose keys and values are in a buffer that has room for more steps.

    Args:
        way: how they are written into it.
    """

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.heads, self.width = way, HEADS, WIDTH
        self.first, self.last = nn.Linear(5, 12), nn.Linear(HEADS * WIDTH, 3)
        self.q, self.k, self.v = (nn.Linear(12, HEADS * WIDTH) for _ in range(3))
        self.register_buffer('keys', torch.zeros(2, HEADS, STEPS, WIDTH))
        self.register_buffer('values', torch.zeros(2, HEADS, STEPS, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        batch, steps, _ = x.shape
        x = self.first(x)
        q, k, v = (
            layer(x).view(batch, steps, self.heads, self.width).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        k, v = self.written(self.keys, k), self.written(self.values, v)
        y = scaled_dot_product_attention(q, k, v)
        return self.last(y.transpose(1, 2).reshape(batch, steps, -1))

    def written(self, cache: Tensor, new: Tensor) -> Tensor:
        batch, _, steps, _ = new.shape
        positions = torch.arange(steps, device=new.device)
        if self.way == 'index_copy':
            return cache.index_copy(2, positions, new)
        if self.way == 'clone':
            cache = cache.clone()
        if self.way == 'index':
            cache[:, :, positions] = new.detach()
        else:
            cache[:batch, :, :steps] = new.detach()
        return cache[:batch, :, :steps]


@pytest.mark.parametrize('way', ['slice', 'clone', 'index', 'index_copy'])
def test_a_cache_in_a_buffer_loses_the_heads_of_what_is_written(way: str) -> None:
    model, x = randomized_network(lambda: Cached(way)), torch.randn(2, 7, 5)
    graph = easypruner.trace(model, x, attention='heads')
    (heads,) = (group for group in graph.groups.values() if group.size == HEADS)
    assert {(m.param, m.dim) for m in heads.members} == {
        *((f'{name}.{kind}', 0) for name in 'qkv' for kind in ('weight', 'bias')),
        ('keys', 1), ('values', 1), ('last.weight', 1),
    }  # fmt: skip
    masks = {name: torch.arange(group.size) % 2 == 0 for name, group in graph.groups.items()}
    assert easypruner.verify(model, masks, x, graph=graph).passed


def test_the_width_of_a_cache_is_no_weight_that_reads_channels() -> None:
    model, x = randomized_network(lambda: Cached('slice')), torch.randn(2, 7, 5)
    graph = easypruner.trace(model, x)
    (width,) = (group for group in graph.groups.values() if group.size == WIDTH)
    # The scale of an attention depends on the width of its heads.
    assert width.mixed
    assert [m.param for m in width.members if m.role == 'in'] == ['last.weight']
    assert not easypruner.verify(model, random_masks(graph), x, graph=graph).failed


class Positions(nn.Module):
    """Adds the first rows of a table, which has more than there are steps."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, 8), nn.Linear(8, 3)
        self.table = nn.Parameter(torch.rand(rows, 8))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x) + self.table[: x.shape[1]])


@pytest.mark.parametrize('rows', [14, 17])
def test_rows_of_a_table_that_are_not_read_stay_for_longer_inputs(rows: int) -> None:
    graph = easypruner.trace(randomized_network(lambda: Positions(rows)), torch.rand(2, 7, 5))
    assert [(name, group.size) for name, group in graph.groups.items()] == [('first', 8)]
    easypruner.prune(graph.model, {'first': torch.arange(8) % 2 == 0}, graph=graph)
    assert graph.model(torch.rand(2, rows, 5)).shape == (2, rows, 3)


class Slimmable(nn.Module):
    """Uses the first half of the channels that its weights have."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, 12), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        half = len(self.first.weight) // 2
        return self.last(nn.functional.linear(x, self.first.weight[:half]).relu())


def test_the_half_that_is_not_used_goes_with_the_other_one() -> None:
    model, x = randomized_network(Slimmable), torch.rand(2, 5)
    graph = easypruner.trace(model, x)
    assert [(name, group.size) for name, group in graph.groups.items()] == [('first', 6)]
    assert easypruner.verify(model, {'first': torch.arange(6) % 3 < 2}, x, graph=graph).passed
