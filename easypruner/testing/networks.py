"""Tiny networks, one for each structure that couples channels in a different way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

from easypruner.errors import EasyPrunerError, nearest

CLASSES = 5
_IMAGES = (2, 3, 8, 8)


def example_inputs(samples: int = 2, seed: int = 0) -> Tensor:
    """Return normally distributed images."""
    return _drawn((samples, *_IMAGES[1:]), seed)


def _drawn(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def randomized_network(
    build: Callable[[], nn.Module], inputs: Tensor | None = None, seed: int = 0
) -> nn.Module:
    """Build a network whose outputs depend on every channel, and return it in evaluation mode.

    The scales and biases of norms are random, because tests cannot find some errors with the
    initial values 1 and 0. Batch norms have the statistics of the inputs. With the initial
    statistics, the outputs of many deep networks are so small that any comparison succeeds.

    Args:
        build: a function that builds the network, with torch's own initialization.
        inputs: the inputs of the network; None for images of shape (8, 3, 8, 8).
        seed: the seed of all random numbers.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build()
        for module in model.modules():
            if isinstance(module, _BatchNorm | nn.LayerNorm | nn.GroupNorm):
                if module.weight is not None:
                    nn.init.uniform_(module.weight, 0.5, 1.5)
                if module.bias is not None:
                    nn.init.uniform_(module.bias, -0.5, 0.5)
        update_bn([example_inputs(8) if inputs is None else inputs], model)
    return model.eval()


@dataclass(frozen=True)
class TinyNetwork:
    """A network for tests, small enough for hundreds of runs.

    Attributes:
        name: the name of its structure.
        build: a function that builds it, with torch's own initialization.
        shape: the shape of its inputs, for a batch of two samples.
    """

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...] = _IMAGES

    def make(self, seed: int = 0) -> nn.Module:
        """Build the network with :func:`randomized_network`."""
        return randomized_network(self.build, self.inputs(seed, samples=8), seed)

    def inputs(self, seed: int = 0, samples: int | None = None) -> Tensor:
        """Return normally distributed inputs; two samples if ``samples`` is None."""
        return _drawn((samples or self.shape[0], *self.shape[1:]), seed)


def block(inputs: int, outputs: int, kernel: int = 3, groups: int = 1) -> nn.Sequential:
    """Return a convolution, a batch norm and a ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class Plain(nn.Module):
    """A chain of convolutions, pooling and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(block(3, 8), block(8, 12), nn.AdaptiveAvgPool2d(1))
        self.head = nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).flatten(1))


class Residual(nn.Module):
    """Two layers that an addition couples. One of them follows an inner layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = block(3, 8)
        self.branch = nn.Sequential(block(8, 6), nn.Conv2d(6, 8, 1), nn.BatchNorm2d(8))
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.relu(x + self.branch(x))
        return self.head(x.mean((2, 3)))


class Dense(nn.Module):
    """Dense connections: every layer reads the input and the outputs of all earlier layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = block(3, 4), block(7, 6), block(13, 5)
        self.head = nn.Linear(18, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.a, self.b, self.c):
            x = torch.cat([x, layer(x)], dim=1)
        return self.head(x.mean((2, 3)))


class Depthwise(nn.Module):
    """An inverted residual with two depthwise convolutions, one with a channel multiplier."""

    def __init__(self) -> None:
        super().__init__()
        self.expand = block(3, 8)
        self.depthwise = block(8, 8, groups=8)
        self.multiplied = block(8, 16, groups=8)
        self.project = nn.Conv2d(16, 6, 1)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.project(self.multiplied(self.depthwise(self.expand(x))))
        return self.head(x.mean((2, 3)))


class Grouped(nn.Module):
    """Grouped convolutions with several channels in each group, one of them transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = block(3, 12)
        self.grouped = block(12, 18, groups=3)
        self.up = nn.ConvTranspose2d(18, 12, 2, stride=2, groups=3)
        self.head = nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.up(self.grouped(self.stem(x))).mean((2, 3)))


class SqueezeExcite(nn.Module):
    """A channel gate computed from a global average."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = block(3, 8)
        self.squeeze, self.excite = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        gate = self.excite(torch.relu(self.squeeze(x.mean((2, 3), keepdim=True))))
        return self.head((x * torch.sigmoid(gate)).mean((2, 3)))


class Split(nn.Module):
    """A gated unit: half of the channels of a layer gates the other half."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = block(3, 12)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.stem(x).chunk(2, dim=1)
        return self.head((value * torch.sigmoid(gate)).mean((2, 3)))


class Flattened(nn.Module):
    """Feature maps that are flattened, without pooling, and read by a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(block(3, 6), nn.MaxPool2d(2), nn.Flatten())
        self.head = nn.Sequential(nn.Linear(6 * 16, 10), nn.ReLU(), nn.Linear(10, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


class Transformer(nn.Module):
    """A transformer block: attention with two heads and an MLP, with residual connections."""

    def __init__(self, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.embed = nn.Conv2d(3, 8, 4, stride=4)
        self.norm = nn.LayerNorm(8)
        self.qkv = nn.Linear(8, 24)
        self.project = nn.Linear(8, 8)
        self.mlp = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2)
        samples, tokens, _ = x.shape
        split = self.qkv(self.norm(x)).reshape(samples, tokens, 3, self.heads, -1)
        q, k, v = split.permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.project(mixed.transpose(1, 2).flatten(2))
        x = x + self.mlp(x)
        return self.head(x.mean(dim=1))


class Recurrent(nn.Module):
    """An LSTM between two linear layers. The second one reads only the last state."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 8)
        self.lstm = nn.LSTM(8, 6, batch_first=True)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.lstm(torch.relu(self.embed(x)))
        return self.head(states[:, -1])


NETWORKS = (
    TinyNetwork('plain', Plain),
    TinyNetwork('residual', Residual),
    TinyNetwork('dense', Dense),
    TinyNetwork('depthwise', Depthwise),
    TinyNetwork('grouped', Grouped),
    TinyNetwork('squeeze_excite', SqueezeExcite),
    TinyNetwork('split', Split),
    TinyNetwork('flattened', Flattened),
    TinyNetwork('transformer', Transformer),
    TinyNetwork('recurrent', Recurrent, shape=(2, 7, 3)),
)
"""All tiny networks, the simplest first."""


def network(name: str) -> TinyNetwork:
    """Return the network with a name.

    Raises:
        EasyPrunerError: there is no such network.

    >>> network('residual').make()(network('residual').inputs()).shape
    torch.Size([2, 5])
    """
    found = {entry.name: entry for entry in NETWORKS}
    if name not in found:
        raise EasyPrunerError(f'there is no tiny network {name!r}; {nearest(name, found)}')
    return found[name]
