"""Ties: widths that code derives from one number lose the same channels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import easypruner
from easypruner.testing import random_masks, randomized_network

HEADS, WIDTH, TURNED = 3, 10, 4


class PartlyTurned(nn.Module):
    """Rotary positions turn a part of each query and key; values are as wide as both.

    One number of the module is the width of all three.
    """

    def __init__(self) -> None:
        super().__init__()
        self.width = WIDTH
        self.q, self.k, self.v = (nn.Linear(12, HEADS * WIDTH) for _ in range(3))
        self.o = nn.Linear(HEADS * WIDTH, 12)

    def turn(self, x: Tensor) -> Tensor:
        turned, rest = x[..., :TURNED], x[..., TURNED:]
        first, second = turned.chunk(2, dim=-1)
        angles = torch.outer(torch.arange(5.0), torch.tensor([1.0, 0.1])).tile(2).to(x)
        turned = turned * angles.cos() + torch.cat([-second, first], -1) * angles.sin()
        return torch.cat([turned, rest], -1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            layer(x).view(*x.shape[:2], HEADS, self.width).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        mixed = functional.scaled_dot_product_attention(self.turn(q), self.turn(k), v, scale=0.3)
        return self.o(mixed.transpose(1, 2).flatten(2))


def test_a_width_follows_another_of_which_a_part_stays() -> None:
    model, x = randomized_network(PartlyTurned), torch.randn(2, 5, 12)
    full = [layer.weight.detach().clone() for layer in (model.v, model.o)]
    graph = easypruner.trace(model, x)
    assert [group.size for group in graph.groups.values()] == [WIDTH - TURNED]
    assert not [f for f in graph.frozen if 'does not follow a cut' in f.reason]
    (name,) = graph.groups
    mask = torch.tensor([True, False, True, True, False, True])
    whole = randomized_network(PartlyTurned)
    easypruner.prune(model, {name: mask}, graph=graph)
    kept = torch.cat([torch.arange(TURNED), TURNED + mask.nonzero().flatten()])
    rows = (torch.arange(HEADS)[:, None] * WIDTH + kept).flatten()
    assert torch.equal(model.v.weight, full[0][rows])
    assert torch.equal(model.o.weight, full[1][:, rows])
    # A removed channel of queries adds nothing to the products if its weights are zero.
    gone = torch.ones(HEADS * WIDTH, dtype=torch.bool).index_fill(0, rows, False)
    with torch.no_grad():
        for tensor in (whole.q.weight, whole.q.bias, whole.o.weight.T):
            tensor[gone] = 0
    assert torch.allclose(model(x), whole(x), atol=1e-5)


def test_random_cuts_of_tied_widths_run() -> None:
    model, x = randomized_network(PartlyTurned), torch.randn(2, 5, 12)
    graph = easypruner.trace(model, x)
    easypruner.prune(model, random_masks(graph), graph=graph)
    assert model(x).shape == (2, 5, 12)
    assert model.width == model.v.out_features // HEADS < WIDTH


class Latent(nn.Module):
    """Keys and values of all heads are made by one layer, of a width that code adds up."""

    def __init__(self) -> None:
        super().__init__()
        self.key, self.value = 6, 9
        self.q = nn.Linear(12, HEADS * self.key)
        self.kv = nn.Linear(12, HEADS * (self.key + self.value))
        self.o = nn.Linear(HEADS * self.value, 12)

    def forward(self, x: Tensor) -> Tensor:
        shape = (*x.shape[:2], -1, self.key + self.value)
        q = self.q(x).view(*x.shape[:2], -1, self.key).transpose(1, 2)
        both = self.kv(x).view(shape).transpose(1, 2)
        k, v = both.split([self.key, self.value], dim=-1)
        mixed = functional.scaled_dot_product_attention(q, k, v, scale=0.3)
        return self.o(mixed.transpose(1, 2).flatten(2))


def test_both_widths_that_code_adds_are_cut() -> None:
    model, x = randomized_network(Latent), torch.randn(2, 5, 12)
    graph = easypruner.trace(model, x)
    assert {name: group.size for name, group in graph.groups.items()} == {'q': 6, 'kv': 9}
    masks = {'q': torch.arange(6) != 1, 'kv': torch.arange(9) % 4 != 2}
    assert easypruner.verify(model, masks, x, graph=graph).passed
    easypruner.prune(model, masks, graph=graph)
    assert (model.key, model.value) == (5, 7)


class StreamAttention(nn.Module):
    """Attention whose heads are as wide as the stream divided by their number."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        qkv = self.qkv(x).view(n, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = (q @ k.transpose(-2, -1) / 3).softmax(-1) @ v
        return self.proj(mixed.transpose(1, 2).reshape(n, length, width))


class Mixer(nn.Sequential):
    """An inner layer, added to its input."""

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class ManyWidths(nn.Sequential):
    """Stages of other widths come before attention, each of which its heads might follow."""

    def __init__(self) -> None:
        stages: list[nn.Module] = []
        for width in range(12, 48, 6):
            inner = nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width)
            stages += [Mixer(*inner), nn.Linear(width, width + 6)]
        super().__init__(nn.Linear(5, 12), *stages)
        self.attention = nn.ModuleList(StreamAttention(48, 6) for _ in range(2))
        self.head = nn.Linear(48, 3)

    def forward(self, x: Tensor) -> Tensor:
        for stage in list(self)[: -len([self.attention, self.head])]:
            x = stage(x)
        for attention in self.attention:
            x = x + attention(x)
        return self.head(x)


def test_heads_follow_the_stream_among_many_widths() -> None:
    model, x = randomized_network(ManyWidths), torch.randn(2, 5, 5)
    graph = easypruner.trace(model, x, attention='heads')
    shared = [g for g in graph.groups.values() if any('qkv' in m.param for m in g.members)]
    assert [group.size for group in shared] == [6]
    easypruner.prune(model, random_masks(graph, seed=0), graph=graph)
    heads = model.attention[0].heads
    assert 1 <= heads == model.attention[1].heads <= 6
    assert model.attention[0].proj.weight.shape == (8 * heads, 8 * heads)
    assert model(x).shape == (2, 5, 3)


class ReducedAttention(StreamAttention):
    """Its keys and values are those of fewer positions, in as many channels as its input has."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads)
        self.qkv, self.kv = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.reduce = nn.Conv1d(width, width, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        q = self.qkv(x).view(n, length, self.heads, width // self.heads).transpose(1, 2)
        few = self.reduce(x.transpose(1, 2)).reshape(n, width, -1).transpose(1, 2)
        kv = self.kv(few).view(n, -1, 2, self.heads, width // self.heads)
        k, v = kv.permute(2, 0, 3, 1, 4)
        mixed = (q @ k.transpose(-2, -1) / 3).softmax(-1) @ v
        return self.proj(mixed.transpose(1, 2).reshape(n, length, width))


class TwoStages(nn.Module):
    """The first stage has one head, which has to stay; those of the second go with its width."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.first = nn.Linear(5, 8), ReducedAttention(8, 1)
        self.merge, self.second = nn.Linear(8, 24), ReducedAttention(24, 3)
        self.head = nn.Linear(24, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = self.merge(x + self.first(x))
        return self.head(x + self.second(x))


def test_a_tie_of_one_module_freezes_no_other_of_its_type() -> None:
    model, x = randomized_network(TwoStages), torch.randn(2, 6, 5)
    graph = easypruner.trace(model, x, attention='heads')
    sizes = {m.param: group.size for group in graph.groups.values() for m in group.members}
    assert sizes['merge.weight'] == sizes['second.proj.weight'] == 3
    masks = {name: torch.arange(group.size) != 1 for name, group in graph.groups.items()}
    easypruner.prune(model, masks, graph=graph)
    assert model.second.heads == 2 and model.second.reduce.weight.shape[:2] == (16, 16)
    assert model(x).shape == (2, 6, 2)


class Nonlocal(nn.Module):
    """Attention over positions, of which all widths are shares of one number."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 32
        self.stem, self.head = nn.Conv2d(3, 32, 1), nn.Conv2d(32, 5, 1)
        self.queries, self.keys = nn.Conv2d(32, 4, 1), nn.Conv2d(32, 4, 1)
        self.values, self.back = nn.Conv2d(32, 16, 1), nn.Conv2d(16, 32, 1)
        self.last = nn.Sequential(nn.Linear(32, 400), nn.Linear(400, 3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(x)
        size = x.shape[2] * x.shape[3]
        queries = self.queries(x).view(-1, self.width // 8, size)
        keys = self.keys(x).view(-1, self.width // 8, size)
        values = self.values(x).view(-1, self.width // 2, size)
        weights = torch.bmm(queries.transpose(1, 2), keys).softmax(-1)
        mixed = torch.bmm(values, weights.transpose(1, 2)).view(-1, self.width // 2, *x.shape[2:])
        x = x + self.back(mixed)
        return self.head(x), self.last(x.mean((2, 3)))


@pytest.mark.parametrize('before', [2, 3])
def test_widths_that_fit_by_chance_in_one_round_are_tied_like_the_others(before: int) -> None:
    """How many others of a width there are decides how many units each keeps in a round."""
    x = torch.rand(2, 3, 6, 6)
    net = randomized_network(
        lambda: nn.Sequential(
            *(nn.Sequential(nn.Conv2d(3, 32, 1), nn.Conv2d(32, 3, 1)) for _ in range(before)),
            Nonlocal(),
        )
    )
    graph = easypruner.trace(net, x)
    name = f'{before}.stem'
    group = graph.groups[name]
    assert group.size == 4
    weights = {f'{before}.queries.weight', f'{before}.values.weight'}
    assert weights <= {member.param for member in group.members}
    easypruner.prune(net, {name: torch.tensor([True, False, True, True])}, graph=graph)
    assert net[-1].width == 24 and net(x)[0].shape == (2, 5, 6, 6)


class Crossing(nn.Module):
    """Takes the width of its first input from the shape of a second one, which a part reads."""

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix, self.read = nn.Linear(12, 12), nn.Linear(12, 12)

        def forward(self, x: Tensor, cross: Tensor) -> Tensor:
            count, _, width = cross.shape
            last = x[:, -1:].reshape(count, -1, width)
            return x + self.mix(last).mean(1, True) * self.read(cross).mean(1, True)

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.layer = nn.Linear(5, 12), nn.Linear(4, 12), self.Layer()
        self.last = nn.Linear(12, 3)

    def forward(self, x: Tensor, cross: Tensor) -> Tensor:
        return self.last(self.layer(self.first(x), self.second(cross)))


def test_a_width_that_code_takes_from_another_input_is_tied_to_it() -> None:
    net, inputs = randomized_network(Crossing), (torch.rand(2, 6, 5), torch.rand(2, 3, 4))
    graph = easypruner.trace(net, inputs)
    group = graph.groups['first']
    assert {'second.weight', 'layer.read.weight'} <= {member.param for member in group.members}
    masks = random_masks(graph, 0.5, 0)
    assert easypruner.verify(net, masks, inputs, graph=graph).error < 1e-12
