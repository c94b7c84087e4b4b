"""Tiny networks, one for each structure that couples channels in its own way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from easypruner.errors import EasyPrunerError, nearest

CLASSES = 5


@dataclass(frozen=True)
class TinyNetwork:
    """A network for tests, small enough for hundreds of runs.

    Attributes:
        name: of its structure.
        build: makes it, with torch's own initialization.
        shape: of its inputs, a batch of two; they are normally distributed.
    """

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...] = (2, 3, 8, 8)

    def make(self, seed: int = 0) -> nn.Module:
        """Return the network in evaluation mode, its weights and statistics all at random.

        Fresh networks have scales of 1 and biases of 0, which hide what tests look for.
        """
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = self.build()
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    statistics = dict(module.named_buffers())
                    nn.init.uniform_(statistics['running_mean'], -0.5, 0.5)
                    nn.init.uniform_(statistics['running_var'], 0.5, 1.5)
                if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
                    nn.init.uniform_(module.weight, 0.5, 1.5)
                    nn.init.uniform_(module.bias, -0.5, 0.5)
        return model.eval()

    def inputs(self, seed: int = 0, samples: int | None = None) -> Tensor:
        """Return inputs for it; ``samples`` of them, two by default."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(samples or self.shape[0], *self.shape[1:], generator=generator)


def block(inputs: int, outputs: int, kernel: int = 3, groups: int = 1) -> nn.Sequential:
    """Return a convolution, a batch norm and a ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class _Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = block(3, 8)
        self.branch = nn.Sequential(block(8, 6), nn.Conv2d(6, 8, 1), nn.BatchNorm2d(8))
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.relu(x + self.branch(x))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


class _Dense(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([block(3, 6), block(9, 6), block(15, 6)])
        self.head = nn.Linear(21, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x)], dim=1)
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


class _SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = block(3, 8)
        self.squeeze = nn.Conv2d(8, 4, 1)
        self.excite = nn.Conv2d(4, 8, 1)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        gate = self.excite(torch.relu(self.squeeze(x.mean((2, 3), keepdim=True))))
        logits: Tensor = self.head((x * torch.sigmoid(gate)).mean((2, 3)))
        return logits


class _Split(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = block(3, 12)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.stem(x).chunk(2, dim=1)
        logits: Tensor = self.head((value * torch.sigmoid(gate)).mean((2, 3)))
        return logits


class _Transformer(nn.Module):
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
        logits: Tensor = self.head(x.mean(dim=1))
        return logits


class _Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 8)
        self.lstm = nn.LSTM(8, 6, batch_first=True)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.lstm(torch.relu(self.embed(x)))
        logits: Tensor = self.head(states[:, -1])
        return logits


def _plain() -> nn.Module:
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(block(3, 8), block(8, 12), *pool, nn.Linear(12, CLASSES))


def _flattened() -> nn.Module:
    convolutions = [nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    return nn.Sequential(*convolutions, nn.Linear(6 * 9, 10), nn.ReLU(), nn.Linear(10, CLASSES))


def _depthwise() -> nn.Module:
    return nn.Sequential(block(3, 8), block(8, 8, groups=8), block(8, 10, kernel=1), *_pooled(10))


def _grouped() -> nn.Module:
    return nn.Sequential(block(3, 8), block(8, 8, groups=2), *_pooled(8))


def _pooled(width: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, CLASSES)]


NETWORKS = (
    TinyNetwork('plain', _plain),
    TinyNetwork('residual', _Residual),
    TinyNetwork('dense', _Dense),
    TinyNetwork('depthwise', _depthwise),
    TinyNetwork('grouped', _grouped),
    TinyNetwork('squeeze_excite', _SqueezeExcite),
    TinyNetwork('split', _Split),
    TinyNetwork('flattened', _flattened),
    TinyNetwork('transformer', _Transformer),
    TinyNetwork('recurrent', _Recurrent, shape=(2, 7, 3)),
)
"""All of them, the simplest first."""


def network(name: str) -> TinyNetwork:
    """Return the network of a name.

    Raises:
        EasyPrunerError: there is none of that name.

    >>> network('residual').make()(network('residual').inputs()).shape
    torch.Size([2, 5])
    """
    found = {entry.name: entry for entry in NETWORKS}
    if name not in found:
        raise EasyPrunerError(f'there is no tiny network {name!r}; {nearest(name, found)}')
    return found[name]
