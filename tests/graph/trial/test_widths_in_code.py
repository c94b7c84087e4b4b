"""Widths that code derives, demands or reads in ways that no operation shows."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import easypruner
from easypruner.graph import ChannelGraph
from easypruner.testing import random_masks, randomized_network

IMAGE = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
TOKENS = torch.rand(2, 5, 3, generator=torch.Generator().manual_seed(0))


def trace_and_verify(model: nn.Module, x: Tensor) -> ChannelGraph:
    """Return the graph of a network, after a random cut of it was verified."""
    graph = easypruner.trace(model, x)
    assert easypruner.verify(model, random_masks(graph), x).passed
    return graph


def sizes(graph: ChannelGraph) -> dict[str, int]:
    return {name: group.size for name, group in graph.groups.items()}


class Multiple(nn.Module):
    """Runs on widths that four divides, as position embeddings of two sines and cosines do."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.head = nn.Linear(3, 16), nn.Linear(16, 10), nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        assert x.shape[-1] % 4 == 0, 'the width must be divisible by 4'
        return self.head(self.inner(x.relu()))


class PaddedToEven(Multiple):
    """Pads an odd width, which the next layer does not expect."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        return self.head(self.inner(functional.pad(x, (0, x.shape[-1] % 2))))


@pytest.mark.parametrize(('kind', 'step'), [(Multiple, 4), (PaddedToEven, 2)])
def test_units_are_joined_where_code_runs_on_multiples_only(
    kind: type[nn.Module], step: int
) -> None:
    model = randomized_network(kind)
    graph = trace_and_verify(model, TOKENS)
    assert sizes(graph) == {'stem': 16 // step, 'inner': 10}
    for kept in range(1, 16 // step):
        masks = {'stem': torch.arange(16 // step) < kept}
        cut = randomized_network(kind)
        easypruner.prune(cut, masks, example_inputs=TOKENS)
        assert cut.get_parameter('stem.weight').shape[0] == kept * step
        assert cut(TOKENS).shape == (2, 5, 4)


class ChannelAttention(nn.Module):
    """Attends to channels, with a width of its own that code takes from the width of its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        count, length, width = x.shape
        qkv = self.qkv(x).reshape(count, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 4, 1).unbind(0)
        x = (q @ k.transpose(-2, -1) @ v).permute(0, 3, 1, 2).reshape(count, length, width)
        return self.proj(x)


class Split(nn.Module):
    """Splits its channels into three parts, which 3 does not divide, and attends to them.

    The parts lose the same positions, three channels at a time. Heads lose two at a time.
    """

    def __init__(self, widths: tuple[int, ...] = (22, 24)) -> None:
        super().__init__()
        self.stems, self.convs, self.attns = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for before, width in zip((3, *widths), widths, strict=False):
            self.stems.append(nn.Conv2d(before, width, 1))
            self.convs.append(nn.Conv2d(math.ceil(width / 3), math.ceil(width / 3), 3, padding=1))
            self.attns.append(ChannelAttention(width, 2))
        self.head = nn.Linear(widths[-1], 4)

    def forward(self, x: Tensor) -> Tensor:
        for stem, conv, attn in zip(self.stems, self.convs, self.attns, strict=True):
            first, second, third = stem(x).chunk(3, 1)
            x = torch.cat([conv(first), second, third], 1)
            tokens = x.flatten(2).transpose(1, 2)
            x = x + attn(tokens).transpose(1, 2).reshape(x.shape)
        return self.head(x.mean((2, 3)))


def test_a_width_is_tied_to_another_one_whose_units_have_other_sizes() -> None:
    model = randomized_network(Split)
    graph = trace_and_verify(model, IMAGE)
    for stage in range(2):
        ties = {
            name: {member.param for member in group.members} for name, group in graph.groups.items()
        }
        both = {f'stems.{stage}.weight', f'attns.{stage}.qkv.weight'}
        assert any(both <= params and graph.groups[name].size > 1 for name, params in ties.items())


class Rotary(nn.Module):
    """Has a frequency for each pair of channels of a head, and checks that."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.register_buffer('periods', torch.arange(1.0, width // 2 + 1))

    def tables(self, length: int) -> Tensor:
        assert 2 * self.periods.numel() == self.width
        angles = torch.arange(length)[:, None] / self.periods[None]
        return angles.tile(2)


class Rotated(nn.Module):
    """A linear attention with rotary positions, whose table a method makes."""

    def __init__(self) -> None:
        super().__init__()
        self.rope = Rotary(8)
        self.q, self.k = nn.Linear(3, 8, bias=False), nn.Linear(3, 8, bias=False)
        self.v, self.head = nn.Linear(3, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        angles = self.rope.tables(x.shape[1])
        q, k = (self._turn(layer(x), angles) for layer in (self.q, self.k))
        return self.head(q @ k.transpose(-2, -1) @ self.v(x))

    def _turn(self, x: Tensor, angles: Tensor) -> Tensor:
        half, other = x.chunk(2, -1)
        return x * angles.cos() + torch.cat([-other, half], -1) * angles.sin()


def test_a_number_is_repaired_that_code_checks_before_any_operation_has_the_width() -> None:
    model = randomized_network(Rotated)
    graph = trace_and_verify(model, TOKENS)
    (name,) = (n for n, g in graph.groups.items() if 'q.weight' in {m.param for m in g.members})
    assert graph.groups[name].size == 4
    easypruner.prune(model, {name: torch.arange(4) != 1}, graph=graph)
    assert model.get_submodule('rope').width == 6 and model(TOKENS).shape == (2, 5, 4)


class Prefixed(nn.Module):
    """Puts learned tokens before a sequence, and takes as many away at the end."""

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.learned, self.project = nn.Parameter(torch.rand(1, 4, 8)), nn.Linear(3, 8)

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([self.learned.expand(len(x), -1, -1), self.project(x)], 1)

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.prefix = self.Tokens(), 4
        self.value, self.head = nn.Linear(8, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.tokens(x)
        x = self.value(x @ x.transpose(1, 2) @ x)
        return self.head(x[:, self.prefix :])


def test_a_number_of_tokens_follows_those_of_a_part() -> None:
    model = randomized_network(Prefixed)
    graph = trace_and_verify(model, TOKENS)
    (name,) = (n for n, group in graph.groups.items() if group.producers[0].dim == 1)
    easypruner.prune(model, {name: torch.tensor([True, False, True, True])}, graph=graph)
    assert model.prefix == 3 and model(TOKENS).shape == (2, 5, 2)


class Outlook(nn.Module):
    """Weighs the windows of a map by attention that a layer makes, and folds them back, as VOLO."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.v, self.attn = nn.Conv2d(3, 8, 1), nn.Linear(8, 8), nn.Linear(8, 2 * 81)
        self.proj = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        count, width, rows, columns = x.shape
        v = functional.unfold(self.v(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), 3, padding=1)
        v = v.reshape(count, 2, width // 2, 9, rows * columns).permute(0, 1, 4, 3, 2)
        attn = self.attn(x.permute(0, 2, 3, 1)).reshape(count, rows * columns, 2, 9, 9)
        y = (attn.permute(0, 2, 1, 3, 4).softmax(-1) @ v).permute(0, 1, 4, 3, 2)
        y = functional.fold(
            y.reshape(count, width * 9, rows * columns), (rows, columns), 3, padding=1
        )
        return self.proj(y.permute(0, 2, 3, 1)).mean((1, 2))


def test_positions_in_a_window_that_is_folded_stay_and_the_channels_go() -> None:
    graph = trace_and_verify(randomized_network(Outlook), IMAGE)
    (group,) = graph.groups.values()
    assert {'stem.weight', 'v.weight', 'proj.weight'} <= {m.param for m in group.members}
    reasons = {entry.reason for entry in graph.frozen if entry.param == 'attn.weight'}
    assert any(reason.startswith('the extent of a convolution kernel') for reason in reasons)


class Steps(nn.Module):
    """Makes a tensor of its width that only training fills, and one for the state of a cell."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = 12
        self.first, self.cell, self.last = nn.Linear(5, 9), nn.LSTMCell(9, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        outputs = torch.FloatTensor(len(x), 2, self.hidden).fill_(0).to(x.device)
        state = [torch.FloatTensor(len(x), self.hidden).fill_(0).to(x.device) for _ in range(2)]
        y = self.first(x)
        for step in range(2):
            state = self.cell(y, state)
            if self.training:
                outputs[:, step] = state[0]
        return self.last(outputs if self.training else state[0])


def test_what_code_makes_and_does_not_read_has_any_width() -> None:
    net, x = randomized_network(Steps), torch.rand(2, 5)
    graph = easypruner.trace(net, x)
    assert graph.groups['cell.weight_hh'].size == 12
    masks = {name: torch.arange(group.size) % 3 > 0 for name, group in graph.groups.items()}
    assert easypruner.verify(net, masks, x, graph=graph).error < 1e-12
    easypruner.prune(net, masks, graph=graph)
    assert net.hidden == 8 and net(x).shape == (2, 3) and net.train()(x).shape == (2, 2, 3)
