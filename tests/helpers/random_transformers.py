"""Building blocks of random networks: heads, experts, modules that a first forward changes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.helpers.random_blocks import Shape, Step, block, keeps_numbers
from tests.helpers.random_tokens import OnTokens

HEAD = 4
"""The width of a head, other than the numbers of heads, so that each is known by its size."""
HAS_FUSED = 'enable_gqa' in (functional.scaled_dot_product_attention.__doc__ or '')


class Attention(nn.Module):
    """Attention with one head of keys and values for one, several or all heads of queries.

    Args:
        inputs: the width of the tokens.
        heads: the number of heads of queries.
        groups: the number of heads of keys and values.
        step: chooses how heads are shared, and how they attend.
    """

    def __init__(self, inputs: int, heads: int, groups: int, step: Step) -> None:
        super().__init__()
        self.heads, self.groups, self.head_dim, self.step = heads, groups, HEAD, step
        self.q = nn.Linear(inputs, heads * HEAD, bias=step.pick(2, True, False))
        self.k, self.v = (nn.Linear(inputs, groups * HEAD) for _ in range(2))
        self.out = nn.Linear(heads * HEAD, inputs)

    def forward(self, x: Tensor) -> Tensor:
        n, positions, _ = x.shape
        q, k, v = (
            layer(x).view(n, positions, -1, self.head_dim).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        mixed = self._attend(q, *self._shared(k, v))
        return x + self.out(mixed.transpose(1, 2).reshape(n, positions, -1))

    def _shared(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        times = self.heads // self.groups
        if times == 1:
            return k, v
        # torch before 2.5 has no enable_gqa.
        way = self.step.pick(0, 'repeat', 'expand', 'fused' if HAS_FUSED else 'expand')
        if way == 'repeat':
            return k.repeat_interleave(times, 1), v.repeat_interleave(times, 1)
        if way == 'expand':
            k, v = (part[:, :, None].expand(-1, -1, times, -1, -1).flatten(1, 2) for part in (k, v))
        return k, v

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        grouped = k.shape[1] != q.shape[1]
        if grouped:
            return functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        if self.step.pick(1, True, False):
            return functional.scaled_dot_product_attention(q, k, v)
        return ((q @ k.transpose(-2, -1)) * HEAD**-0.5).softmax(-1) @ v


@keeps_numbers
def plain_heads(shape: Shape, step: Step) -> nn.Module:
    heads = step.pick(3, 2, 3, 5)
    return OnTokens(Attention(shape[0], heads, heads, step))


@keeps_numbers
def grouped_heads(shape: Shape, step: Step) -> nn.Module:
    groups = step.pick(3, 2, 3)
    return OnTokens(Attention(shape[0], groups * step.pick(2, 2, 3), groups, step))


@keeps_numbers
def multi_query_heads(shape: Shape, step: Step) -> nn.Module:
    return OnTokens(Attention(shape[0], step.pick(3, 2, 3, 5), 1, step))


class Experts(nn.Module):
    """A router chooses one or two experts for each token."""

    def __init__(self, inputs: int, width: int, step: Step) -> None:
        super().__init__()
        self.count, self.chosen, self.step = 4, step.pick(0, 1, 2), step
        self.router = nn.Linear(inputs, self.count, bias=False)
        self.up = nn.Parameter(torch.randn(self.count, inputs, width) / 2)
        self.down = nn.Parameter(torch.randn(self.count, width, inputs) / 2)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(0, 1)
        weights, chosen = self.router(tokens).softmax(-1).topk(self.chosen)
        return x + self.step.pick(1, self._batched, self._dense)(tokens, weights, chosen).view_as(x)

    def _batched(self, tokens: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        """Look the weights of the chosen experts up."""
        inner = torch.einsum('ti,tkiw->tkw', tokens, self.up[chosen]).relu()
        made = torch.einsum('tkw,tkwi->tki', inner, self.down[chosen])
        return (made * weights[..., None]).sum(1)

    def _dense(self, tokens: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        """Let all experts work, and leave those out that are not chosen."""
        shares = torch.zeros(len(tokens), self.count, dtype=tokens.dtype, device=tokens.device)
        shares = shares.scatter(1, chosen, weights)
        inner = torch.einsum('ti,eiw->etw', tokens, self.up).relu()
        return torch.einsum('etw,ewi,te->ti', inner, self.down, shares)


@keeps_numbers
def experts(shape: Shape, step: Step) -> nn.Module:
    return OnTokens(Experts(shape[0], step.width, step))


class ChangedAtFirstForward(nn.Module):
    """Installs a hook, a buffer and a cache at its first forward, as some libraries do."""

    def __init__(self, inputs: int, width: int, step: Step) -> None:
        super().__init__()
        self.step, self.is_ready = step, False
        self.seen: list[Any] = []
        self.first, self.last = nn.Conv2d(inputs, width, 1), nn.Conv2d(width, inputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        if not self.is_ready:
            self.is_ready = True
            self.first.register_forward_hook(self.step.pick(0, _double, self._note))
            self.register_buffer('scale', torch.full((), 2.0, dtype=x.dtype, device=x.device))
        return x + self.scale * self.last(self.first(x).relu())

    def _note(self, module: nn.Module, args: Any, output: Tensor) -> None:
        self.seen = [output.shape[-1]]


def _double(module: nn.Module, args: Any, output: Tensor) -> Tensor:
    return 2 * output


@block
def changed_at_first_forward(shape: Shape, step: Step) -> nn.Module:
    return ChangedAtFirstForward(shape[0], step.width, step)


TRANSFORMERS = (
    'plain_heads', 'grouped_heads', 'multi_query_heads', 'experts', 'changed_at_first_forward',
)  # fmt: skip
"""The kinds of this file."""
