"""Networks whose shapes come from tensors: attention, regions of interest, experts in loops."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

import easypruner


class Attention(nn.Module):
    """Attention of YOLO11: views take the width of the block's input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, width // heads
        self.key_dim = self.head_dim // 2
        self.scale = self.key_dim**-0.5
        self.qkv = nn.Conv2d(width, width + 2 * heads * self.key_dim, 1)
        self.positions = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.proj = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        sizes = [self.key_dim, self.key_dim, self.head_dim]
        q, k, v = self.qkv(x).view(b, self.heads, sum(sizes), h * w).split(sizes, dim=2)
        attention = ((q * self.scale).transpose(-2, -1) @ k).softmax(-1)
        y = (v @ attention.transpose(-2, -1)).view(b, c, h, w)
        return self.proj(y + self.positions(v.reshape(b, c, h, w)))


class Block(nn.Module):
    """Splits its input, and attends to one half."""

    def __init__(self) -> None:
        super().__init__()
        self.c = 32
        self.first = nn.Conv2d(8, 64, 1)
        self.attention = Attention(32, 2)
        self.last = nn.Conv2d(64, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.first(x).split((self.c, self.c), 1)
        return self.last(torch.cat([a, b + self.attention(b)], 1))


def _check(net: nn.Module, x: Any, **options: Any) -> dict[str, int]:
    graph = easypruner.trace(net, x, **options)
    masks = {
        name: torch.arange(group.size) >= group.size // 3
        for name, group in graph.groups.items()
        if group.size > 1
    }
    masks = {n: m if bool(~m.all()) else torch.arange(m.numel()) > 0 for n, m in masks.items()}
    assert easypruner.verify(net, masks, x, graph=graph).passed
    return {name: group.size for name, group in graph.groups.items()}


def test_a_view_that_takes_the_width_of_the_input_ties_the_values_to_it() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 1), Block(), nn.Conv2d(8, 5, 1))
    graph = easypruner.trace(net, torch.randn(1, 3, 4, 4))
    assert {n: g.size for n, g in graph.groups.items()} == {
        '0': 8,
        '1.first': 16,
        '1.attention.qkv': 8,
        '1.last': 8,
    }
    assert _check(net, torch.randn(1, 3, 4, 4))


class GroupedQueries(nn.Module):
    """Grouped-query attention by einsum."""

    def __init__(self, kv: int) -> None:
        super().__init__()
        self.kv, self.heads, self.d = kv, 8, 6
        self.inner = nn.Linear(10, 12)
        self.q, self.k = nn.Linear(12, 48), nn.Linear(12, kv * 6)
        self.v, self.out = nn.Linear(12, kv * 6), nn.Linear(48, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(x)
        b, n, _ = x.shape
        q = self.q(x).view(b, n, self.heads, self.d).view(b, n, self.kv, -1, self.d)
        k, v = (f(x).view(b, n, self.kv, self.d) for f in (self.k, self.v))
        weights = (torch.einsum('bngrd,bmgd->bgrnm', q, k) / 2).softmax(-1)
        return self.out(torch.einsum('bgrnm,bmgd->bngrd', weights, v).reshape(b, n, -1))


@pytest.mark.parametrize('kv', [2, 4])
@pytest.mark.parametrize('attention', ['heads', 'width'])
def test_few_heads_of_keys_by_einsum(kv: int, attention: str) -> None:
    torch.manual_seed(0)
    units = _check(GroupedQueries(kv), torch.randn(2, 5, 10), attention=attention)
    assert units == {'inner': 12, 'q': kv if attention == 'heads' else 6}


class BoxHead(nn.Module):
    """Regions of two levels, gathered in a tensor of zeros, and two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.levels = nn.ModuleList(nn.Conv2d(6, 8, 3, padding=1) for _ in range(2))
        self.first, self.last = nn.Linear(8 * 9, 10), nn.Linear(10, 4)

    def forward(self, x: Tensor, boxes: Tensor) -> Tensor:
        maps = [level(self.stem(x)) for level in self.levels]
        found = x.new_zeros((len(boxes), maps[0].shape[1], 3, 3))
        for number, features in enumerate(maps):
            rows = torch.arange(number, len(boxes), 2)
            regions = torchvision.ops.roi_align(features, [boxes[rows]], (3, 3))
            found[rows] = regions.to(found.dtype)
        return self.last(self.first(found.flatten(1)).relu())


def test_channels_of_regions_go_with_the_flattened_columns_of_the_box_head() -> None:
    torch.manual_seed(0)
    boxes = torch.tensor([[0.0, 0, 6, 6], [1, 2, 7, 5], [2, 2, 9, 9], [0, 1, 4, 8]])
    units = _check(BoxHead(), (torch.randn(1, 3, 12, 12), boxes))
    assert units == {'stem': 6, 'levels.0': 8, 'first': 10}


class LoopedExperts(nn.Module):
    """Two of four experts for each token, in a loop over the experts."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(10, 12)
        self.router = nn.Linear(12, 4, bias=False)
        self.up = nn.ModuleList(nn.Linear(12, 7) for _ in range(4))
        self.down = nn.ModuleList(nn.Linear(7, 12) for _ in range(4))
        self.last = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(x).flatten(0, 1)
        best, chosen = self.router(x).softmax(-1).topk(2, -1)
        total = torch.zeros_like(x)
        for number in range(4):
            rows, place = torch.where(chosen == number)
            made = self.down[number](self.up[number](x[rows]).relu())
            total.index_add_(0, rows, made * best[rows, place, None])
        return self.last(total)


def test_looped_experts_lose_their_inner_widths_and_stay_whole() -> None:
    torch.manual_seed(0)
    net, x = LoopedExperts(), torch.randn(2, 5, 10)
    units = _check(net, x)
    assert units == {'inner': 12, **{f'up.{number}': 7 for number in range(4)}}
    reasons = {f.reason for f in easypruner.trace(net, x).frozen if f.param == 'router.weight'}
    assert reasons == {'positions of channels are used as values: eq in the model itself'}


class SharedWidth(nn.Module):
    """Attention whose code takes the width from its input, in two blocks, one at an output."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.proj = nn.Linear(24, 72), nn.Linear(24, 24)

        def forward(self, x: Tensor) -> Tensor:
            b, n, c = x.shape
            q, k, v = self.qkv(x).reshape(b, n, 3, 2, c // 2).permute(2, 0, 3, 1, 4)
            mixed = (q @ k.transpose(-2, -1)).softmax(-1) @ v
            return x + self.proj(mixed.transpose(1, 2).reshape(b, n, c))

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.between = nn.Linear(5, 24), nn.Linear(24, 24)
        self.one, self.two = self.Block(), self.Block()

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.between(self.one(self.stem(x))))


def test_a_width_that_follows_an_output_stays_for_its_sake() -> None:
    net, x = SharedWidth(), torch.randn(2, 7, 5)
    assert _check(net, x) == {'stem': 12}
    held = {(entry.param, entry.dim): entry for entry in easypruner.trace(net, x).frozen}
    assert held['two.qkv.weight', 0].reason.startswith('an output of the model')
    assert held['two.qkv.weight', 0].channels == 72


class Chunks(nn.Module):
    """Splits a width into parts of which the last one is shorter."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.expand, self.project = nn.Conv2d(3, width, 1), nn.Conv2d(width, 4, 1)
        part = -(-width // 3)
        self.second = nn.Conv2d(part, part, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        first, second, third = self.expand(x).chunk(3, 1)
        return self.project(torch.cat([first, self.second(second), third], 1))


@pytest.mark.parametrize('width', [20, 22])
def test_a_last_part_may_be_shorter(width: int) -> None:
    sizes = _check(Chunks(width).double(), torch.randn(1, 3, 5, 5).double())
    # The last channels of the longer parts go along with one of the shorter part.
    assert sizes['expand'] == 5 and sizes['expand#2'] == 1


class PaddedValues(nn.Module):
    """Linear attention: a row of ones sums the keys, and divides the values."""

    def __init__(self) -> None:
        super().__init__()
        self.k, self.v, self.out = nn.Linear(6, 8), nn.Linear(6, 9), nn.Linear(9, 4)

    def forward(self, x: Tensor) -> Tensor:
        k, v = self.k(x).relu(), nn.functional.pad(self.v(x), (0, 1), value=1.0)
        sums = k @ (k.transpose(-2, -1) @ v)
        return self.out(sums[..., :-1] / (sums[..., -1:] + 1))


def test_channels_beside_a_padded_one_may_go() -> None:
    assert _check(PaddedValues().double(), torch.randn(1, 5, 6).double()) == {'k': 8, 'v': 9}
