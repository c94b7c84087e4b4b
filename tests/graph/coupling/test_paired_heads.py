"""Heads that are split again, as into two halves, or with which a view counts the batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import easypruner
from easypruner.testing import random_masks, randomized_network


class PairedHeads(nn.Module):
    """Differential attention: a head has two halves of queries and keys, and one of values."""

    def __init__(self, heads: int, width: int) -> None:
        super().__init__()
        self.heads, self.width, size = heads, width, 2 * heads * width
        self.qkv, self.o = nn.Linear(12, 3 * size), nn.Linear(size, 12)

    def forward(self, x: Tensor) -> Tensor:
        n, length, _ = x.shape
        q, k, v = self.qkv(x).chunk(3, dim=2)
        q, k = (
            y.reshape(n, length, 2 * self.heads, self.width)
            .transpose(1, 2)
            .reshape(n, self.heads, 2, length, self.width)
            .unbind(2)
            for y in (q, k)
        )
        v = v.reshape(n, length, self.heads, 2 * self.width).transpose(1, 2)
        first, second = (
            functional.scaled_dot_product_attention(a, b, v) for a, b in zip(q, k, strict=True)
        )
        return self.o((first - 0.3 * second).transpose(1, 2).reshape(n, length, -1))


@pytest.mark.parametrize('sizes', [(4, 6), (4, 8), (3, 8), (5, 16)])
def test_heads_that_are_split_again_go_whole(sizes: tuple[int, int]) -> None:
    model, x = randomized_network(lambda: PairedHeads(*sizes)), torch.randn(2, 7, 12)
    graph = easypruner.trace(model, x, attention='heads')
    assert [group.size for group in graph.groups.values()] == [sizes[0]]
    assert easypruner.verify(model, random_masks(graph), x, graph=graph).passed


@pytest.mark.parametrize('batch', [1, 3, 4])
def test_heads_that_are_counted_with_the_batch_go_whole(batch: int) -> None:
    model = randomized_network(
        lambda: nn.Sequential(
            nn.Linear(6, 16),
            nn.TransformerEncoderLayer(16, 4, 24, batch_first=True),
            nn.Linear(16, 2),
        )
    )
    x = torch.randn(batch, 5, 6)
    graph = easypruner.trace(model, x, attention='heads')
    assert sorted(group.size for group in graph.groups.values()) == [4, 24]
    easypruner.prune(model, random_masks(graph), graph=graph)
    assert model(x).shape == (batch, 5, 2)
