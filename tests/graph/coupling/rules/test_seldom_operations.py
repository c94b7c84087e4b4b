"""Operations that few networks have: channels go beside them, or stay with the reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import easypruner
from easypruner.graph.coupling.rules.registration import has_rule
from easypruner.testing import randomized_network


class Net(nn.Module):
    """A layer, something between, and another layer over the channels."""

    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.between = nn.Conv2d(3, 8, 1), between
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.between(self.first(x)))


def _read(x: Tensor) -> Tensor:
    return x * 2 if bool((x.mean() > 100).item()) else x * 3


@pytest.mark.parametrize(
    'between',
    [
        lambda x: x.abs_(),
        lambda x: x * x.clone().ge_(0.0),
        lambda x: x + torch.floor_divide(x, 0.1),
        lambda x: torch.rot90(x, 1, (2, 3)),
        lambda x: x.cummax(2).values,
        lambda x: x + x.diagonal(dim1=2, dim2=3)[..., None],
        lambda x: x * (~torch.isin(x.detach().round(), torch.tensor([1.0, 0.0], dtype=x.dtype))),
        lambda x: x.clone().copysign_(x.roll(1, 2)),
        lambda x: torch.linalg.solve_triangular(torch.eye(4).to(x) + x.tril(), x, upper=False),
        lambda x: torch.linalg.solve_triangular(
            torch.ones(4, 4).to(x).triu(), x.transpose(1, 3), upper=True
        ).transpose(1, 3),
        lambda x: torch.linalg.solve_triangular(
            torch.ones(4, 4).to(x), x.transpose(1, 2), upper=True, left=False
        ).transpose(1, 2),
    ],
)
def test_channels_go_beside_an_operation(between: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    net, x = Net(between), torch.randn(2, 3, 4, 4)
    assert {n: g.size for n, g in easypruner.trace(net, x).groups.items()} == {'first': 8}
    assert easypruner.verify(net, {'first': torch.arange(8) > 2}, x).passed


@pytest.mark.parametrize(
    ('between', 'reason'),
    [
        (lambda x: torch.rot90(x, 2, (1, 2)), 'rotated by a right angle'),
        (lambda x: x.cummin(1).values, 'channels are sorted'),
        (lambda x: x + x[..., 0].diagonal(dim1=1, dim2=2).sum(), 'the diagonal of a square'),
        (
            lambda x: torch.linalg.solve_triangular(
                torch.ones(8, 8).to(x), x.transpose(1, 2), upper=True
            ).transpose(1, 2),
            'the triangle of a square',
        ),
    ],
)
def test_channels_stay_where_an_operation_works_along_them(
    between: Callable[[Tensor], Tensor], reason: str
) -> None:
    x = torch.randn(2, 3, 8, 8)
    graph = easypruner.trace(Net(between), x)
    assert not graph.groups
    assert any(frozen.reason.startswith(reason) for frozen in graph.frozen)


class Bags(nn.Module):
    """Sums of looked-up rows."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.last = nn.EmbeddingBag(10, 6, mode='mean'), nn.Linear(6, 3)

    def forward(self, words: Tensor) -> Any:
        return self.last(self.table(words))


def test_the_width_of_bags_of_words_can_be_cut() -> None:
    net, words = Bags(), torch.randint(0, 10, (4, 5))
    graph = easypruner.trace(net, words)
    assert {n: g.size for n, g in graph.groups.items()} == {'table': 6}
    assert easypruner.verify(net, {'table': torch.arange(6) > 1}, words, graph=graph).passed
    easypruner.prune(net, {'table': torch.arange(6) > 1}, graph=graph)
    assert net.table.embedding_dim == 4


def test_the_width_of_rows_of_bounded_length_goes_as_that_of_a_norm() -> None:
    net, words = nn.Sequential(nn.Embedding(10, 6, max_norm=0.5), nn.Linear(6, 3)), torch.arange(7)
    keep = torch.arange(6) > 1
    narrow = nn.Sequential(nn.Embedding(10, 4, max_norm=0.5), nn.Linear(4, 3))
    state = net.state_dict()
    narrow.load_state_dict(
        {n: t[..., keep] if n != '1.bias' else t.clone() for n, t in state.items()}
    )
    graph = easypruner.trace(net, words)
    (group,) = graph.groups.values()
    assert group.mixed and group.size == 6
    easypruner.prune(net, {group.name: keep}, graph=graph)
    assert torch.equal(net(words), narrow(words))


class Matrices(nn.Module):
    """A matrix that code makes of vectors, between two layers."""

    def __init__(self, make: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last, self.make = nn.Linear(3, 8), nn.Linear(8, 4), make
        self.left, self.right = nn.Parameter(torch.ones(8)), nn.Parameter(torch.ones(8))
        self.matrix = nn.Parameter(torch.ones(8, 8))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x) @ self.make(self.matrix, self.left, self.right))


@pytest.mark.parametrize(
    ('make', 'sizes'),
    [
        (lambda matrix, left, right: torch.diag(left) + right.diag_embed(), [8]),
        (lambda matrix, left, right: torch.addr(matrix, left, right, beta=2), [8, 8]),
        (lambda matrix, left, right: matrix + torch.diag(left[1:], 1), []),
    ],
)
def test_channels_go_from_matrices_that_are_made_of_vectors(
    make: Callable[[Tensor, Tensor, Tensor], Tensor], sizes: list[int]
) -> None:
    net, x = randomized_network(lambda: Matrices(make)), torch.randn(5, 3)
    graph = easypruner.trace(net, x)
    assert [group.size for group in graph.groups.values()] == sizes
    masks = {name: torch.arange(8) > n for n, name in enumerate(graph.groups)}
    assert not easypruner.verify(net, masks, x, graph=graph).failed
    easypruner.prune(net, masks, graph=graph)
    assert net(x).shape == (5, 4)


def test_an_operation_in_place_has_the_rule_of_the_other() -> None:
    aten = torch.ops.aten
    assert all(map(has_rule, (aten.abs_.default, aten.eq_.Tensor, aten.heaviside_.default)))
    assert not has_rule(aten.linalg_qr.default)


class Turning(nn.Module):
    """Positions turn pairs of channels, as complex numbers, behind others of one layer's rows."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 14), nn.Linear(14, 3)
        self.plain = 10

    def forward(self, x: Tensor) -> Tensor:
        plain, turned = self.first(x).split([self.plain, 4], dim=-1)
        pairs = torch.view_as_complex(turned.float().reshape(*turned.shape[:-1], -1, 2))
        angles = torch.outer(torch.arange(5.0), torch.tensor([1.0, 0.1]))
        turns = torch.polar(torch.ones_like(angles), angles)
        return self.last(torch.cat([plain, torch.view_as_real(pairs * turns).flatten(-2)], -1))


def test_channels_beside_complex_numbers_go_in_pairs() -> None:
    """Complex numbers need even strides, in which these channels are counted."""
    net, x = randomized_network(Turning), torch.randn(2, 5, 6)
    graph = easypruner.trace(net, x)
    assert {n: g.size for n, g in graph.groups.items()} == {'first': 5}
    mask = torch.tensor([True, False, True, True, True])
    assert easypruner.verify(net, {'first': mask}, x, graph=graph).passed
    easypruner.prune(net, {'first': mask}, graph=graph)
    assert net.first.out_features == 12
    assert net(x).shape == (2, 5, 3)


class Form(nn.Module):
    """A bilinear form of two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.last = nn.Linear(4, 6), nn.Linear(5, 8), nn.Linear(7, 3)
        self.form = nn.Bilinear(6, 8, 7)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.last(self.form(self.left(x), self.right(y)).relu())


def test_channels_go_on_all_sides_of_a_bilinear_form() -> None:
    net, inputs = randomized_network(Form), (torch.randn(3, 2, 4), torch.randn(3, 2, 5))
    graph = easypruner.trace(net, inputs)
    assert {n: g.size for n, g in graph.groups.items()} == {'left': 6, 'right': 8, 'form': 7}
    masks = {name: torch.arange(group.size) > 1 for name, group in graph.groups.items()}
    assert easypruner.verify(net, masks, inputs, graph=graph).passed
    easypruner.prune(net, masks, graph=graph)
    assert (net.form.in1_features, net.form.in2_features, net.form.out_features) == (4, 6, 5)


@pytest.mark.parametrize('groups', [1, 2, 4])
def test_channels_that_offsets_move_together_go_from_each_of_their_groups(groups: int) -> None:
    ops = pytest.importorskip('torchvision.ops')
    offsets = torch.randn(2, 18 * groups, 4, 4, generator=torch.Generator().manual_seed(0))

    class Moved(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(6, 4, 1)
            self.moved = ops.DeformConv2d(8, 6, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.moved(self.first(x), offsets.to(x)))

    net, x = randomized_network(Moved), torch.randn(2, 3, 4, 4)
    graph = easypruner.trace(net, x)
    assert {n: g.size for n, g in graph.groups.items()} == {'first': 8 // groups, 'moved': 6}
    masks = {name: torch.arange(group.size) > 0 for name, group in graph.groups.items()}
    assert easypruner.verify(net, masks, x, graph=graph).passed
    easypruner.prune(net, masks, graph=graph)


@pytest.mark.skipif(not hasattr(torch.compiler, 'set_stance'), reason='needs torch 2.6')
def test_channels_around_branches_that_torch_chooses_go_from_both() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 3)
            self.one, self.other = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            return self.last(torch.cond(x.sum() > 0, self.one, self.other, (x,)))

    net, x = randomized_network(Branches), torch.randn(2, 4)
    graph = easypruner.trace(net, x)
    assert {n: g.size for n, g in graph.groups.items()} == {'first': 8, 'one': 8}
    removed = {member.param for member in graph.groups['one'].members if member.role == 'out'}
    assert {'one.weight', 'other.weight'} <= removed
    masks = dict.fromkeys(graph.groups, torch.arange(8) > 2)
    assert easypruner.verify(net, masks, x, graph=graph).passed


def test_nested_tensors_are_refused() -> None:
    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            nested = torch.nested.as_nested_tensor(list(x), layout=torch.jagged)
            return self.last(self.first(nested).relu()).values()

    with pytest.raises(easypruner.errors.TraceError, match=r'nested tensor.* padded tensors'):
        easypruner.trace(Nested(), torch.randn(2, 5, 4))
