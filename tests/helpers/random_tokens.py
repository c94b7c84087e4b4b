"""Building blocks of random networks that read a map as a sequence: embeddings and attention."""

from __future__ import annotations

from typing import Any

import einops
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.helpers.random_blocks import Block, Shape, Step, block, fitted, keeps_numbers


class OnTokens(nn.Module):
    """Lets a block for tokens ``(n, positions, channels)`` work on a map."""

    def __init__(self, tokens: nn.Module, fit: nn.Module | None = None) -> None:
        super().__init__()
        self.fit = fit or nn.Identity()
        self.tokens = tokens

    def forward(self, x: Tensor) -> Tensor:
        result = self.tokens(self.fit(x).flatten(2).transpose(1, 2))
        return result.transpose(1, 2).unflatten(2, x.shape[2:])


@block
def token_mlp(shape: Shape, step: Step) -> nn.Module:
    inputs = shape[0]
    body = nn.Sequential(
        step.pick(0, nn.LayerNorm(inputs), nn.RMSNorm(inputs), nn.Identity()),
        nn.Linear(inputs, 2 * step.width),
        step.pick(1, nn.GLU(), nn.GELU()),
        nn.Linear(step.pick(1, 1, 2) * step.width, inputs),
    )
    return OnTokens(Block(lambda self, x: x + self.body(x), body=body))


@block
def embedded_positions(shape: Shape, step: Step) -> nn.Module:
    inputs, height, width = shape

    def forward(self: Any, x: Tensor) -> Tensor:
        first = self.first.expand(x.shape[0], -1, -1)
        x = torch.cat([first, x], 1) + self.positions
        x = self.norm(x)
        first, rest = x[:, :1], x[:, 1:]
        return step.pick(0, rest, rest * first, rest + x[:, 0, None])

    return OnTokens(Block(
        forward,
        first=nn.Parameter(torch.randn(1, 1, inputs)),
        positions=nn.Parameter(torch.randn(1, height * width + 1, inputs)),
        norm=step.pick(1, nn.LayerNorm(inputs), nn.Identity()),
    ))  # fmt: skip


@block
def looked_up_positions(shape: Shape, step: Step) -> nn.Module:
    inputs, height, width = shape

    def forward(self: Any, x: Tensor) -> Tensor:
        return x + self.table(torch.arange(x.shape[1], device=x.device))

    return OnTokens(Block(forward, table=nn.Embedding(height * width, inputs)))


@block
def position_mixing(shape: Shape, step: Step) -> nn.Module:
    """A linear layer over positions, as in MLP-Mixer."""
    positions = shape[1] * shape[2]

    def forward(self: Any, x: Tensor) -> Tensor:
        return x + self.out(self.inner(x.transpose(1, 2)).relu()).transpose(1, 2)

    inner, out = nn.Linear(positions, step.width), nn.Linear(step.width, positions)
    return OnTokens(Block(forward, inner=inner, out=out))


@block
def flattened(shape: Shape, step: Step) -> nn.Module:
    """A linear layer reads all positions of all channels, and another one makes a map again."""
    inputs = shape[0] * shape[1] * shape[2]
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(inputs, step.width),
        nn.ReLU(),
        nn.Linear(step.width, step.width * 4),
        Block(lambda self, x: x.view(x.shape[0], -1, 2, 2)),
    )


def _heads(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def _attend(q: Tensor, k: Tensor, v: Tensor, fused: bool) -> Tensor:
    if fused:
        return functional.scaled_dot_product_attention(q, k, v)
    return ((q @ k.transpose(-2, -1)) * 0.5).softmax(-1) @ v


@block
def attention(shape: Shape, step: Step) -> nn.Module:
    """Queries, keys and values have their own layers. The number of heads is fixed."""
    inputs, heads = shape[0], step.pick(0, 1, 2)
    width = heads * step.width

    def forward(self: Any, x: Tensor) -> Tensor:
        q, k, v = (_heads(layer(x), heads) for layer in (self.q, self.k, self.v))
        return x + self.out(_attend(q, k, v, step.pick(1, True, False)).transpose(1, 2).flatten(2))

    layers = {name: nn.Linear(inputs, width) for name in ('q', 'k', 'v')}
    return OnTokens(Block(forward, **layers, out=nn.Linear(width, inputs)))


@block
def fused_attention(shape: Shape, step: Step) -> nn.Module:
    """One layer makes queries, keys and values."""
    inputs, heads = shape[0], step.pick(0, 1, 2)
    width = heads * step.width

    def forward(self: Any, x: Tensor) -> Tensor:
        qkv = self.qkv(x)
        n, positions, _ = qkv.shape
        q, k, v = step.pick(
            1,
            lambda: qkv.reshape(n, positions, 3, heads, -1).permute(2, 0, 3, 1, 4),
            lambda: [_heads(part, heads) for part in qkv.chunk(3, -1)],
            lambda: einops.rearrange(qkv, 'b n (three h d) -> three b h n d', three=3, h=heads),
            lambda: einops.rearrange(qkv, 'b n (h three d) -> three b h n d', three=3, h=heads),
        )()
        mixed = _attend(q, k, v, step.pick(2, True, False))
        return x + self.out(einops.rearrange(mixed, 'b h n d -> b n (h d)'))

    return OnTokens(Block(forward, qkv=nn.Linear(inputs, 3 * width), out=nn.Linear(width, inputs)))


@block
def grouped_queries(shape: Shape, step: Step) -> nn.Module:
    """Two heads of queries share one of keys and values."""
    inputs, width = shape[0], 2 * step.width

    def forward(self: Any, x: Tensor) -> Tensor:
        q, (k, v) = _heads(self.q(x), 4), (_heads(layer(x), 2) for layer in (self.k, self.v))
        if step.pick(0, True, False):
            k, v = (part.repeat_interleave(2, dim=1) for part in (k, v))
        else:
            k, v = (part[:, :, None].expand(-1, -1, 2, -1, -1).flatten(1, 2) for part in (k, v))
        return self.out(_attend(q, k, v, step.pick(1, True, False)).transpose(1, 2).flatten(2))

    return OnTokens(Block(
        forward,
        q=nn.Linear(inputs, 2 * width),
        k=nn.Linear(inputs, width),
        v=nn.Linear(inputs, width),
        out=nn.Linear(2 * width, step.width),
    ))  # fmt: skip


@keeps_numbers
def multihead(shape: Shape, step: Step) -> nn.Module:
    fit, inputs = fitted(shape[0], 2)
    layer = nn.MultiheadAttention(inputs, 2, batch_first=True, bias=step.pick(0, True, False))

    def forward(self: Any, x: Tensor) -> Tensor:
        result, _ = self.layer(x, x, x, need_weights=step.pick(1, True, False))
        return x + result

    return OnTokens(Block(forward, layer=layer), fit)


@keeps_numbers
def encoder_layer(shape: Shape, step: Step) -> nn.Module:
    fit, inputs = fitted(shape[0], 2)
    layer = nn.TransformerEncoderLayer(inputs, 2, step.width, 0.0, batch_first=True,
                                       norm_first=step.pick(0, True, False))  # fmt: skip
    return OnTokens(layer, fit)


@block
def windows(shape: Shape, step: Step) -> nn.Module:
    """Attention within windows of the map, which views cut out and join again."""
    size = 2 if shape[1] % 2 == 0 and shape[2] % 2 == 0 else 1

    def forward(self: Any, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        x = x.permute(0, 2, 3, 1).view(n, h // size, size, w // size, size, c)
        x = x.transpose(2, 3).reshape(-1, size * size, c)
        x = x + self.layer(x)
        x = x.view(n, h // size, w // size, size, size, -1).transpose(2, 3)
        return x.reshape(n, h, w, -1).permute(0, 3, 1, 2)

    return Block(forward, layer=nn.Linear(shape[0], shape[0]))
