"""Widths that a model's Python code stores or derives: repaired, tied, or frozen with a reason."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import easypruner
from easypruner.testing import example_inputs, randomized_network
from tests.helpers.networks import traced_network


def frozen_by_trials(graph: easypruner.graph.ChannelGraph) -> set[str]:
    """Return the parameters that stay because the forward pass does not follow a cut."""
    return {entry.param for entry in graph.frozen if 'does not follow a cut' in entry.reason}


def cut_in_half(model: nn.Module, inputs: Tensor) -> easypruner.graph.ArchitectureRecord:
    """Trace, check that nothing is frozen, verify, and prune half of every group."""
    graph = easypruner.trace(model, inputs)
    assert graph.groups and not frozen_by_trials(graph)
    masks = {name: torch.arange(group.size) % 2 == 0 for name, group in graph.groups.items()}
    assert easypruner.verify(model, masks, inputs).passed
    shape = model(inputs).shape
    record = easypruner.prune(model, masks, graph=graph)
    assert model(inputs).shape == shape
    return record


class Pieces(nn.Module):
    """A list of split sizes, several of which are equal."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 36, 1), nn.Linear(36, 5)
        self.sizes = [12, 8, 8, 8]
        self.branches = nn.ModuleList(nn.Conv2d(size, 8, 1) for size in self.sizes[1:])

    def forward(self, x: Tensor) -> Tensor:
        first, *rest = torch.split(self.stem(x), self.sizes, dim=1)
        maps = [branch(part) for branch, part in zip(self.branches, rest, strict=True)]
        return self.head(torch.cat([first, *maps], 1).mean((2, 3)))


def test_equal_numbers_of_a_list_follow_their_own_pieces() -> None:
    model = randomized_network(Pieces)
    cut_in_half(model, example_inputs())
    assert model.sizes == [6, 4, 4, 4] and isinstance(model.sizes, list)


class Nested(nn.Module):
    """A list whose sum is a width in one call, and whose numbers are widths in another."""

    def __init__(self) -> None:
        super().__init__()
        self.dims = [8, 16, 32]
        self.project = nn.Conv2d(3, 8 + 56, 1)
        self.steps = nn.ModuleList([nn.Conv2d(8, 16, 1), nn.Conv2d(16, 32, 1)])
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        y, x = torch.split(self.project(x), (self.dims[0], sum(self.dims)), dim=1)
        parts = torch.split(x, self.dims, dim=1)
        y = y * parts[0]
        for step, part in zip(self.steps, parts[1:], strict=True):
            y = step(y) * part
        return self.head(y.mean((2, 3)))


def test_numbers_of_a_list_are_searched_in_the_whole_module() -> None:
    model = randomized_network(Nested)
    cut_in_half(model, example_inputs())
    assert model.dims == [4, 8, 16]


class ReadFromPart(nn.Module):
    """A width that is read from a part."""

    def __init__(self) -> None:
        super().__init__()
        self.part, self.head = nn.Sequential(nn.Conv2d(3, 16, 1), nn.ReLU()), nn.Linear(16, 5)
        self.part.width = 16  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        x = self.part(x)
        return self.head(x.flatten(2).transpose(1, 2).reshape(len(x), -1, self.part.width).mean(1))


def test_numbers_of_a_submodule_are_repaired() -> None:
    model = randomized_network(ReadFromPart)
    record = cut_in_half(model, example_inputs())
    assert model.part.width == 8
    assert record.attributes['part', 'width'] == 8


class Heads(nn.Module):
    """The width of a head is computed from that of the input; each projection has its own layer."""

    def __init__(self, width: int = 24, heads: int = 3) -> None:
        super().__init__()
        self.heads = heads
        self.embed, self.head = nn.Conv2d(3, width, 1), nn.Linear(width, 5)
        self.q, self.k, self.v, self.proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2)
        n, length, width = x.shape
        q, k, v = (
            layer(x).reshape(n, length, self.heads, width // self.heads).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        y = (q @ k.transpose(-1, -2)).softmax(-1) @ v
        return self.head((x + self.proj(y.transpose(1, 2).reshape(n, length, width))).mean(1))


def test_a_width_divided_by_the_number_of_heads_is_tied_to_theirs() -> None:
    model = randomized_network(Heads)
    graph = easypruner.trace(model, example_inputs())
    assert [group.size for group in graph.groups.values()] == [8]
    cut_in_half(model, example_inputs())
    assert model.q.weight.shape == (12, 12) and model.heads == 3


@pytest.mark.parametrize(('width', 'heads'), [(10, 2), (12, 3), (24, 4)])
@pytest.mark.parametrize('seed', range(3))
def test_attention_of_torch_takes_any_masks(width: int, heads: int, seed: int) -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.inner = nn.Linear(3, width), nn.Linear(width, width)
            self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
            self.head = nn.Linear(width, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = self.inner(self.embed(x.flatten(2).transpose(1, 2)).relu())
            return self.head(x + self.attention(x, x, x, need_weights=False)[0]).mean(1)

    model = randomized_network(Network)
    graph = easypruner.trace(model, example_inputs())
    assert not frozen_by_trials(graph)
    generator = torch.Generator().manual_seed(seed)
    masks = {n: torch.rand(g.size, generator=generator) < 0.5 for n, g in graph.groups.items()}
    for mask in masks.values():
        mask[0] = True
    assert easypruner.verify(model, masks, example_inputs()).passed
    easypruner.prune(model, masks, graph=graph)
    assert model(example_inputs()).shape == (2, 5)
    assert model.attention.embed_dim == model.attention.in_proj_weight.shape[1]


@pytest.mark.parametrize('channels', [5, 7, 9, 12])
def test_halves_that_swap_are_right_or_stay(channels: int) -> None:
    class Swapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, channels, 1), nn.Conv2d(channels, 5, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            half = x.shape[1] // 2
            return self.b(torch.cat([x[:, half:], x[:, :half]], 1)).mean((2, 3))

    model = randomized_network(Swapped)
    graph = easypruner.trace(model, example_inputs())
    assert bool(graph.groups) == (channels % 2 == 0)
    for name, group in graph.groups.items():
        for seed in range(8):
            mask = torch.rand(group.size, generator=torch.Generator().manual_seed(seed)) < 0.6
            mask[0] = True
            assert easypruner.verify(model, {name: mask}, example_inputs()).passed


def test_a_window_at_a_fixed_position_keeps_the_channels_before_it() -> None:
    class Window(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(4, 5, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(torch.cat([self.a(x), x, 2 * x, 3 * x], 1)[:, 9:13]).mean((2, 3))

    graph = easypruner.trace(Window(), example_inputs())
    assert not graph.groups
    assert any('expected a window that starts at' in entry.reason for entry in graph.frozen)


def test_a_grouped_convolution_of_one_channel_each_can_be_cut_again() -> None:
    class Grouped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.grouped = nn.Conv2d(3, 12, 1), nn.Conv2d(12, 12, 3, groups=3)
            self.head = nn.Linear(12, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.grouped(self.stem(x)).mean((2, 3)))

    model = randomized_network(Grouped)
    graph = easypruner.trace(model, example_inputs())
    names = list(graph.groups)
    assert [graph.groups[name].size for name in names] == [4, 4]
    easypruner.prune(model, {names[0]: torch.arange(4) < 1}, graph=graph)
    easypruner.prune(model, {names[1]: torch.arange(4) < 2}, graph=graph)
    assert model.grouped.groups == 3 and model.grouped.weight.shape == (6, 1, 3, 3)
    assert (model.grouped.in_channels, model.grouped.out_channels) == (3, 6)
    assert model(example_inputs()).shape == (2, 5)


def test_a_module_registered_twice_is_resized_once() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.first = nn.Conv2d(3, 12, 1), nn.Conv2d(12, 12, 3, padding=1, groups=12)
            self.second = self.first
            self.head = nn.Linear(12, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.second(self.first(self.stem(x))).mean((2, 3)))

    model = randomized_network(Twice)
    cut_in_half(model, example_inputs())
    assert (model.first.groups, model.first.in_channels) == (6, 6)


class Constant(nn.Module):
    """A tensor in a plain attribute, made on the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 1), nn.Linear(8, 5)
        self.table = [torch.linspace(0, 1, 8)]

    def forward(self, x: Tensor) -> Tensor:
        return self.head((self.conv(x) * self.table[0][None, None]).mean((2, 3)))


def test_a_model_with_tensors_in_attributes_is_cut() -> None:
    model = randomized_network(Constant)
    table = model.table[0]
    cut_in_half(model, example_inputs())
    assert model.table[0] is table and model.conv.out_channels == 4


class ReadsValues(Constant):
    """A forward that asks for a value."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (2.0 if float(x.sum()) > 0 else 1.0)


def test_a_forward_that_reads_values_runs_on_real_tensors() -> None:
    cut_in_half(randomized_network(ReadsValues), example_inputs())


@pytest.mark.parametrize('groups', [1, 4])
def test_a_hard_coded_number_freezes_only_its_own_channels(groups: int) -> None:
    """A tie to a width that fits by chance would leave one unit, from which nothing can be cut."""

    class Written(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.g = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 12, 1, groups=groups)
            self.b, self.out, self.head = nn.Conv2d(12, 6, 1), nn.Linear(6, 3), nn.Linear(3, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = self.b(self.g(self.a(x)).relu()).mean((2, 3))
            return self.head(self.out(x).view(-1, 3))

    graph = traced_network(Written)
    assert list(graph.groups) == ['a', 'g', 'b']
    assert graph.groups['g'].size == 12 // groups
    assert frozen_by_trials(graph) == {'out.weight', 'out.bias', 'head.weight'}


class PartsOfOneWidth(nn.Module):
    """Keeps the sizes of two parts of a table, as rotary tables of several dimensions do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = 12, 4
        self.make, self.read = nn.Linear(5, 16), nn.Linear(16, 3)
        self.register_buffer('table', torch.rand(16))

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.table.split([self.first, self.second])
        return self.read(self.make(x) * torch.cat([b, a]))


def test_numbers_of_parts_of_a_width_follow_whichever_channels_go() -> None:
    net, x = PartsOfOneWidth(), torch.rand(2, 5)
    graph = easypruner.trace(net, x)
    sizes = sorted(group.size for group in graph.groups.values())
    assert sizes == [4, 12]
    masks = {
        name: torch.arange(g.size) < (2 if g.size == 4 else 9) for name, g in graph.groups.items()
    }
    assert easypruner.verify(net, masks, x, graph=graph).passed
    easypruner.prune(net, masks, graph=graph)
    assert (net.first, net.second) == (9, 2)
    net(x)


class Between(nn.Module):
    """Two layers, and code between them that reads the width of the first."""

    def __init__(self, code: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.code, self.last = nn.Linear(3, 16), code, nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.code(self.first(x)))


@pytest.mark.parametrize(
    'code',
    [
        lambda x: x * x.shape[-1] ** -0.5,
        lambda x: (x / x.size(-1)).relu(),
        lambda x: x.tanh().mul_(len(x[0]) ** 0.5),
    ],
)
def test_channels_by_whose_number_code_scales_are_not_compared_with_zeroed_ones(
    code: Callable[[Tensor], Tensor],
) -> None:
    net, x = randomized_network(lambda: Between(code)), torch.randn(5, 3)
    graph = easypruner.trace(net, x)
    assert {name: group.size for name, group in graph.groups.items()} == {'first': 16}
    assert graph.groups['first'].mixed
    found = easypruner.verify(net, {'first': torch.arange(16) > 6}, x, graph=graph)
    assert found.unchecked == ('first',) and not found.failed
    constant = easypruner.trace(Between(lambda x: x * 16**-0.5), x)
    assert not constant.groups['first'].mixed


@pytest.mark.parametrize(
    'code',
    [
        lambda x: x * math.log(x.shape[-1]),
        lambda x: x / (x.shape[-1] - 1),
        lambda x: x + torch.tensor(1 + 1 / x.shape[-1]),
        lambda x: torch.add(x, x.relu(), alpha=1 / x.shape[-1]),
        lambda x: torch.lerp(x, x.relu(), 1 / x.shape[-1]),
        lambda x: torch.addcmul(x, x, x, value=8 - x.shape[-1]),
        lambda x: torch.addmm(x, torch.ones(len(x), 2), x[:2], alpha=1 - 1 / x.shape[-1]),
    ],
)
def test_channels_with_any_number_that_follows_their_width_are_mixed(
    code: Callable[[Tensor], Tensor],
) -> None:
    class Two(Between):
        """Has a layer behind, whose channels are not mixed."""

        def __init__(self) -> None:
            super().__init__(code)
            self.last, self.head = nn.Linear(16, 16), nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(super().forward(x).tanh())

    net, x = randomized_network(Two), torch.randn(5, 3)
    graph = easypruner.trace(net, x)
    masks = {name: torch.arange(16) > 6 for name in graph.groups}
    assert [name for name, group in graph.groups.items() if group.mixed] == ['first']
    assert set(graph.groups) == {'first', 'last'}
    assert easypruner.verify(net, masks, x, graph=graph).passed


@pytest.mark.parametrize(
    'code',
    [
        lambda x: x.relu() if x.shape[-1] > 12 else x.sigmoid(),
        lambda x: x if x.shape[-1] == 16 else x.tanh(),
        lambda x: x.softmax(-1) if x.shape[-1] >= 16 else x,
    ],
)
def test_channels_stay_if_code_takes_another_path_without_them(
    code: Callable[[Tensor], Tensor],
) -> None:
    graph = easypruner.trace(Between(code), torch.randn(5, 3))
    assert not graph.groups
    assert any('the code takes another path' in entry.reason for entry in graph.frozen)


def test_code_that_takes_the_path_of_its_own_number_follows() -> None:
    class Checked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last, self.width = nn.Linear(3, 16), nn.Linear(16, 4), 16

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            return self.last(x.relu() if x.shape[-1] == self.width else x)

    net, x = randomized_network(Checked), torch.randn(5, 3)
    graph = easypruner.trace(net, x)
    easypruner.prune(net, {'first': torch.arange(16) > 6}, graph=graph)
    assert net.width == net.first.out_features == 9
