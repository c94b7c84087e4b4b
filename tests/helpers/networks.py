"""Small networks, one for each structure that couples channels in its own way."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

import easypruner
from easypruner.graph import ChannelGraph


def block(inputs: int, outputs: int, kernel: int = 3, groups: int = 1) -> nn.Sequential:
    """Return convolution, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class Plain(nn.Module):
    """A chain of convolutions, pooled into a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(block(3, 8), block(8, 12), nn.AdaptiveAvgPool2d(1))
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).flatten(1))


class Residual(nn.Module):
    """Two layers coupled by an addition, one of them through a projection."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = block(3, 8)
        self.conv = nn.Sequential(block(8, 6), nn.Conv2d(6, 8, 1), nn.BatchNorm2d(8))
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.relu(x + self.conv(x))
        return self.head(x.mean((2, 3)))


class Concatenated(nn.Module):
    """Dense connections: every layer reads all before it."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = block(3, 4), block(4, 6), block(10, 5)
        self.head = nn.Linear(15, 5)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x)
        ab = torch.cat([a, self.b(a)], dim=1)
        return self.head(torch.cat([ab, self.c(ab)], dim=1).mean((2, 3)))


class Depthwise(nn.Module):
    """Inverted residual: a depthwise convolution, also with a channel multiplier."""

    def __init__(self) -> None:
        super().__init__()
        self.expand = block(3, 8)
        self.depthwise = block(8, 8, groups=8)
        self.multiplied = block(8, 16, groups=8)
        self.project = nn.Conv2d(16, 6, 1)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.project(self.multiplied(self.depthwise(self.expand(x))))
        return self.head(x.mean((2, 3)))


class Grouped(nn.Module):
    """A grouped convolution whose groups hold several channels each, plain and transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = block(3, 12)
        self.grouped = block(12, 18, groups=3)
        self.up = nn.ConvTranspose2d(18, 12, 2, stride=2, groups=3)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.up(self.grouped(self.stem(x))).mean((2, 3)))


class SqueezeExcite(nn.Module):
    """A channel gate computed from a global average."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = block(3, 8)
        self.squeeze, self.excite = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        gate = self.excite(torch.relu(self.squeeze(x.mean((2, 3), keepdim=True)))).sigmoid()
        return self.head((x * gate).mean((2, 3)))


class Flattened(nn.Module):
    """Maps flattened into a linear layer, without pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(block(3, 6), nn.MaxPool2d(2), nn.Flatten())
        self.head = nn.Sequential(nn.Linear(6 * 16, 10), nn.ReLU(), nn.Linear(10, 5))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


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
    Plain, Residual, Concatenated, Depthwise, Grouped, SqueezeExcite, Flattened, Shuffled, Shared,
    Volume,
)  # fmt: skip
"""Networks of one input of shape (n, 3, 8, 8) and one output of shape (n, 5)."""


def example(batch: int = 2) -> Tensor:
    """Return an input for any of :data:`NETWORKS`."""
    return torch.randn(batch, 3, 8, 8, generator=torch.Generator().manual_seed(7))


def lively(build: Callable[[], nn.Module], inputs: Tensor | None = None) -> nn.Module:
    """Build a network whose outputs depend on every channel: seeded, its batch norms settled.

    Freshly built, many deep networks give outputs so small that any comparison holds.
    """
    torch.manual_seed(0)
    model = build()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine:
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
            module.momentum = None
    model.train()
    with torch.no_grad():
        for _ in range(2):
            model(example(8) if inputs is None else inputs)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 0.1
    return model.eval()


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


def graph_of(build: type[nn.Module]) -> ChannelGraph:
    return easypruner.trace(lively(build), example())
