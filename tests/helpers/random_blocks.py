"""Building blocks of random networks: their registry, and blocks that convolve, add and join."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm
from torchvision.ops import FrozenBatchNorm2d

Shape = tuple[int, int, int]
"""Channels, height and width of the map that a block reads."""


@dataclass(frozen=True)
class Step:
    """The description of one block.

    Attributes:
        kind: key of :data:`BLOCKS`.
        width: the channels it makes, more or less.
        variant: decides its details.
    """

    kind: str
    width: int
    variant: int

    def pick(self, position: int, *options: Any) -> Any:
        """Return one of ``options``; positions choose independently of each other."""
        return options[(self.variant >> (3 * position)) % len(options)]


class Block(nn.Module):
    """A module whose forward is a function of the module and a map. Keywords become its parts."""

    def __init__(self, function: Callable[..., Tensor], **parts: Any) -> None:
        super().__init__()
        self._function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self._function(self, x)


Builder = Callable[[Shape, Step], nn.Module]

BLOCKS: dict[str, Builder] = {}
"""Kind -> the function that builds it."""

KEEPS_NUMBERS: set[str] = set()
"""The kinds whose Python code stores widths, compares them or computes with them."""


def block(builder: Builder) -> Builder:
    """Register a builder under its name."""
    BLOCKS[builder.__name__] = builder
    return builder


def keeps_numbers(builder: Builder) -> Builder:
    """Register a builder whose blocks store widths in Python."""
    KEEPS_NUMBERS.add(builder.__name__)
    return block(builder)


def up_to(number: int, multiple: int) -> int:
    """Return the next multiple of ``multiple`` from ``number`` on."""
    return -(-number // multiple) * multiple


def fitted(channels: int, multiple: int) -> tuple[nn.Module, int]:
    """Return a module that makes the number of channels a multiple, and that number.

    A part has more channels than there are parts. A view does not tell which of its sizes the code
    keeps, so the larger one is cut.
    """
    wanted = max(up_to(channels, multiple), multiple * (multiple + 1))
    return (nn.Identity() if wanted == channels else nn.Conv2d(channels, wanted, 1)), wanted


def norm(channels: int, shape: Shape, step: Step, position: int) -> nn.Module:
    """Return a normalization over the channels of a map of ``shape``'s height and width."""
    # Over a single position, an instance norm is undefined.
    per_instance = nn.InstanceNorm2d if shape[1] * shape[2] > 1 else nn.BatchNorm2d
    return step.pick(
        position,
        lambda: nn.BatchNorm2d(channels),
        lambda: _frozen(FrozenBatchNorm2d(channels)),
        lambda: nn.GroupNorm(1 if channels % 2 else 2, channels),
        lambda: per_instance(channels, affine=True),
        lambda: nn.BatchNorm2d(channels, affine=False),
        lambda: Block(_channels_last_norm, norm=nn.LayerNorm(channels)),
        lambda: per_instance(channels, track_running_stats=True),
        lambda: nn.Identity(),
    )()


def _frozen(layer: FrozenBatchNorm2d) -> FrozenBatchNorm2d:
    for tensor in layer.buffers():
        nn.init.uniform_(tensor, 0.5, 1.5)
    return layer


def _channels_last_norm(self: Any, x: Tensor) -> Tensor:
    return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def activation(channels: int, step: Step, position: int) -> nn.Module:
    """Return an activation."""
    return step.pick(
        position,
        lambda: nn.ReLU(),
        lambda: nn.PReLU(channels),
        lambda: nn.PReLU(),
        lambda: nn.SiLU(inplace=True),
        lambda: nn.GELU(),
        lambda: nn.Hardswish(),
        lambda: nn.Softmax2d(),
        lambda: nn.Identity(),
    )()


# Convolutions


@block
def conv(shape: Shape, step: Step) -> nn.Module:
    kernel = step.pick(0, 1, 3)
    layer = nn.Conv2d(shape[0], step.width, kernel, padding=kernel // 2, bias=step.pick(1, 1, 0))
    return nn.Sequential(layer, norm(step.width, shape, step, 2), activation(step.width, step, 3))


@block
def strided(shape: Shape, step: Step) -> nn.Module:
    stride = 2 if shape[1] > 2 else 1
    return nn.Conv2d(shape[0], step.width, 3, padding=1, stride=stride)


@block
def grouped(shape: Shape, step: Step) -> nn.Module:
    groups = step.pick(0, 2, 3, 4)
    fit, inputs = fitted(shape[0], groups)
    outputs = up_to(step.width, groups)
    if step.pick(1, False, True):
        layer: nn.Module = nn.ConvTranspose2d(inputs, outputs, 3, padding=1, groups=groups)
    else:
        layer = nn.Conv2d(inputs, outputs, 3, padding=1, groups=groups)
    return nn.Sequential(fit, layer, norm(outputs, shape, step, 2))


@block
def depthwise(shape: Shape, step: Step) -> nn.Module:
    inputs, multiplier = shape[0], step.pick(0, 1, 2, 3)
    make = step.pick(1, nn.Conv2d, nn.ConvTranspose2d)
    layer = make(inputs, inputs * multiplier, 3, padding=1, groups=inputs)
    return nn.Sequential(layer, activation(inputs * multiplier, step, 2))


@block
def gathering_groups(shape: Shape, step: Step) -> nn.Module:
    """One output channel for every two inputs: the groups have several inputs and one output."""
    fit, inputs = fitted(shape[0], 2)
    return nn.Sequential(fit, nn.Conv2d(inputs, inputs // 2, 3, padding=1, groups=inputs // 2))


@block
def transposed(shape: Shape, step: Step) -> nn.Module:
    stride = 2 if shape[1] <= 4 else 1
    return nn.ConvTranspose2d(shape[0], step.width, stride, stride=stride)


@block
def weight_normed(shape: Shape, step: Step) -> nn.Module:
    layer, dim = step.pick(
        0,
        (nn.Conv2d(shape[0], step.width, 3, padding=1), 0),
        (nn.ConvTranspose2d(shape[0], step.width, 3, padding=1), 1),
    )
    return nn.Sequential(weight_norm(layer, dim=dim), nn.ReLU())


@block
def standardized(shape: Shape, step: Step) -> nn.Module:
    """A convolution whose weight is standardized over its inputs in the forward pass."""

    def forward(self: Any, x: Tensor) -> Tensor:
        weight = self.layer.weight
        weight = weight - weight.mean((1, 2, 3), keepdim=True)
        weight = weight / (weight.std((1, 2, 3), keepdim=True) + 1e-5)
        return functional.conv2d(x, weight, self.layer.bias, padding=1)

    return Block(forward, layer=nn.Conv2d(shape[0], step.width, 3, padding=1))


@block
def along_one_side(shape: Shape, step: Step) -> nn.Module:
    """A convolution in one dimension, over rows or over all positions."""

    def forward(self: Any, x: Tensor) -> Tensor:
        return self.layer(x.flatten(2)).unflatten(2, x.shape[2:])

    return Block(forward, layer=nn.Conv1d(shape[0], step.width, 3, padding=1))


@block
def volume(shape: Shape, step: Step) -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        return self.layer(x[:, :, None].expand(-1, -1, 2, -1, -1)).mean(2)

    return Block(forward, layer=nn.Conv3d(shape[0], step.width, (2, 1, 1)))


# Sums and concatenations


@block
def residual(shape: Shape, step: Step) -> nn.Module:
    inputs = shape[0]
    outputs, bypass = step.pick(
        0,
        lambda: (inputs, nn.Identity()),
        lambda: (step.width, nn.Conv2d(inputs, step.width, 1)),
    )()
    body = nn.Sequential(
        nn.Conv2d(inputs, step.width, 3, padding=1),
        norm(step.width, shape, step, 1),
        activation(step.width, step, 2),
        nn.Conv2d(step.width, outputs, 1),
        norm(outputs, shape, step, 3),
    )

    def forward(self: Any, x: Tensor) -> Tensor:
        return self.bypass(x) + self.body(x)

    return Block(forward, body=body, bypass=bypass)


@block
def layer_scaled(shape: Shape, step: Step) -> nn.Module:
    inputs = shape[0]
    scale = step.pick(
        0,
        lambda: torch.randn(inputs, 1, 1),
        lambda: torch.randn(1, inputs, 1, 1),
        lambda: torch.randn(1),
        lambda: torch.randn(()),
    )()

    def forward(self: Any, x: Tensor) -> Tensor:
        return x + self.scale * self.body(x)

    return Block(forward, body=nn.Conv2d(inputs, inputs, 1), scale=nn.Parameter(scale))


@block
def bare_parameter(shape: Shape, step: Step) -> nn.Module:
    inputs = shape[0]
    offset = nn.Parameter(torch.randn(inputs))

    def forward(self: Any, x: Tensor) -> Tensor:
        return x * self.offset.exp().view(1, -1, 1, 1) - self.offset[:, None, None]

    return Block(forward, offset=offset)


@block
def dense(shape: Shape, step: Step) -> nn.Module:
    inputs, growth = shape[0], step.width // 2
    layers = nn.ModuleList(
        nn.Sequential(norm(inputs + i * growth, shape, step, i),
                      nn.Conv2d(inputs + i * growth, growth, 3, padding=1))
        for i in range(step.pick(3, 1, 2, 3))
    )  # fmt: skip

    def forward(self: Any, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return x

    return Block(forward, layers=layers)


@block
def inception(shape: Shape, step: Step) -> nn.Module:
    inputs, width = shape[0], step.width // 2
    small, large = nn.Conv2d(inputs, width, 1), nn.Conv2d(inputs, width + 1, 3, padding=1)

    def forward(self: Any, x: Tensor) -> Tensor:
        pooled = functional.avg_pool2d(x, 3, stride=1, padding=1)
        small, large = self.small(x), self.large(x)
        return torch.cat(step.pick(0, [small, large, pooled], [pooled, small], [large, x]), 1)

    return Block(forward, small=small, large=large)


@block
def nested_cat(shape: Shape, step: Step) -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        a, b = self.a(x), self.b(x)
        inner = torch.cat([a, b, a], 1)
        return torch.cat(step.pick(0, [inner, b], [b, inner], [inner, inner]), 1)

    width = step.width // 2
    return Block(forward, a=nn.Conv2d(shape[0], width, 1), b=nn.Conv2d(shape[0], width + 1, 1))


@block
def added_concatenations(shape: Shape, step: Step) -> nn.Module:
    """Concatenations whose parts have other bounds are added."""

    def forward(self: Any, x: Tensor) -> Tensor:
        return torch.cat([self.a(x), self.b(x)], 1) + torch.cat([self.b(x), self.a(x)], 1)

    width = step.width // 2
    return Block(forward, a=nn.Conv2d(shape[0], width, 1), b=nn.Conv2d(shape[0], width + 2, 1))


@block
def stacked(shape: Shape, step: Step) -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        both = torch.stack([self.a(x), self.b(x)], dim=step.pick(0, 1, 2, 0))
        dim = step.pick(0, 1, 2, 0)
        return (both * both.softmax(dim)).sum(dim)

    return Block(
        forward, a=nn.Conv2d(shape[0], step.width, 1), b=nn.Conv2d(shape[0], step.width, 1)
    )
