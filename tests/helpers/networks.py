"""Networks that only tests need, beside those of :mod:`easypruner.testing`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import easypruner
from easypruner.graph import ArchitectureRecord, ChannelGraph
from easypruner.testing import example_inputs, random_masks, randomized_network
from easypruner.testing.networks import (
    Dense,
    Depthwise,
    Flattened,
    Grouped,
    Plain,
    Residual,
    SqueezeExcite,
    block,
)


class Shuffled(nn.Module):
    """A channel split, one branch, and a channel shuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.branch = block(3, 12), block(6, 6)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.stem(x).chunk(2, dim=1)
        x = torch.cat([left, self.branch(right)], dim=1)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.head(x.mean((2, 3)))


class Shared(nn.Module):
    """One layer used twice, and two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.twice = block(3, 8), block(8, 8)
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        self.second.weight = self.first.weight
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.twice(self.twice(self.stem(x))).mean((2, 3))
        return self.head(self.second(self.first(x).relu()))


class TwoInputs(nn.Module):
    """Two inputs and a dictionary of outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.depth, self.both = block(3, 6), block(1, 4), block(10, 7)
        self.head, self.map = nn.Linear(7, 5), nn.Conv2d(7, 2, 1)

    def forward(self, image: Tensor, depth: Tensor) -> dict[str, Tensor]:
        x = self.both(torch.cat([self.image(image), self.depth(depth)], dim=1))
        return {'logits': self.head(x.mean((2, 3))), 'map': self.map(x)}


class Volume(nn.Module):
    """Three spatial dimensions, resized and padded."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv3d(3, 6, 3), nn.Conv3d(6, 4, 1)
        self.slope = nn.PReLU(6)
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, None].expand(-1, -1, 4, -1, -1)
        x = nn.functional.pad(self.slope(self.first(x)), (1, 1, 1, 1))
        x = nn.functional.interpolate(x, scale_factor=2)
        return self.head(self.second(x).mean((2, 3, 4)))


NETWORKS: tuple[type[nn.Module], ...] = (
    Plain, Residual, Dense, Depthwise, Grouped, SqueezeExcite, Flattened, Shuffled, Shared,
    Volume,
)  # fmt: skip
"""Networks of one input of shape (n, 3, 8, 8) and one output of shape (n, 5)."""


class Normed(nn.Module):
    """A layer norm mixes the channels of two of its groups; one layer is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.spare = nn.Linear(8, 4), nn.Linear(2, 2)
        self.norm, self.first = nn.LayerNorm(8), nn.Linear(3, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.first(x.mean((2, 3)))))


NASTY = 'a"b<i>&amp;\\N\x1b\n[red]'


class Nasty(nn.Module):
    """A module with a name that every format must escape."""

    def __init__(self) -> None:
        super().__init__()
        self.add_module(NASTY, nn.Linear(3, 8))
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(getattr(self, NASTY)(x.mean((2, 3))))


def traced_network(build: Callable[[], nn.Module], **options: Any) -> ChannelGraph:
    """Return the channel graph of a randomized network of images."""
    return easypruner.trace(randomized_network(build), example_inputs(), **options)


def cut_randomly(model: nn.Module, seed: int = 0, keep: float = 0.5) -> ArchitectureRecord:
    """Cut a network of images by random masks."""
    graph = easypruner.trace(model, example_inputs())
    return easypruner.prune(model, random_masks(graph, keep, seed), graph=graph)
