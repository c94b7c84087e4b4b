"""Repairs of other modules of a type: where the same part of them reads the same number."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import easypruner
from easypruner.testing import random_masks, randomized_network


class CheckedAttention(nn.Module):
    """An attention that refuses inputs of another width, whose last layer has its own inputs."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.embed_dim, self.num_heads, self.head_dim = width, heads, width // heads
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] != self.embed_dim:
            raise ValueError(f'the width is {x.shape[2]}; expected {self.embed_dim}')
        shape = (*x.shape[:2], self.num_heads, self.head_dim)
        q, k, v = (layer(x).view(shape).transpose(1, 2) for layer in (self.q, self.k, self.v))
        found = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        merged = found.reshape(*x.shape[:2], self.num_heads * self.head_dim)
        return self.norm(x + self.out(merged))


class Layers(nn.Module):
    """A network of two layers, whose stream goes by several channels."""

    def __init__(self, width: int, heads: int, grain: int) -> None:
        super().__init__()
        self.first, self.last, self.grain = nn.Linear(6, width), nn.Linear(width, 3), grain
        self.layers = nn.ModuleList(CheckedAttention(width, heads) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).unflatten(-1, (-1, self.grain)).softmax(-1).flatten(-2)
        for layer in self.layers:
            x = layer(x)
        return self.last(x)


@pytest.mark.parametrize('sizes', [(32, 4, 4), (24, 4, 3), (48, 4, 6)])
def test_a_number_is_not_taken_for_the_width_of_another_layer(sizes: tuple[int, int, int]) -> None:
    model, x = randomized_network(lambda: Layers(*sizes)), torch.randn(1, 5, 6)
    graph = easypruner.trace(model, x, attention='heads')
    assert not [each for each in graph.frozen if 'does not follow' in each.reason]
    assert sorted(group.size for group in graph.groups.values()) == [4, 4, sizes[0] // sizes[2]]
    easypruner.prune(model, random_masks(graph), graph=graph)
    assert model(x).shape == (1, 5, 3)
