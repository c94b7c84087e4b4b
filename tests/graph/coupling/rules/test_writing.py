"""Rules for look-ups and writes at positions that a tensor says, beside the channels."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import easypruner
from easypruner.testing import check_rule, randomized_network

Function = Callable[[Tensor, Tensor], Tensor]


class Messages(nn.Module):
    """A function of the rows of nodes and of edges between them, between two layers."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function
        self.first, self.last = nn.Linear(6, 9), nn.Linear(9, 4)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        return self.last(self.function(self.first(x).sigmoid(), edges))


def wide(index: Tensor, h: Tensor) -> Tensor:
    return index[:, None].expand(-1, h.shape[1])


def in_place(h: Tensor, e: Tensor) -> Tensor:
    out = torch.zeros_like(h)
    out[e[1]] += h[e[0]]
    return out


def written(x: Tensor, columns: Tensor, values: Tensor) -> Tensor:
    x[:, columns] = values
    return x


def written_rows(x: Tensor, mask: Tensor) -> Tensor:
    x[mask] = x[mask].view(-1, x.shape[1]).flip(0).flatten()
    return x


def routed(h: Tensor, e: Tensor) -> Tensor:
    out = h.new_zeros(h.shape)
    for number in range(3):
        out.index_add_(0, e[0][number : number + 2], h[e[1][number : number + 2]] * (number + 1))
    return out


BESIDE: dict[str, Function] = {
    'index_add': lambda h, e: h.index_add(0, e[1], h[e[0]], alpha=2),
    'index_copy': lambda h, e: h.index_copy(0, e[1, :5].unique(), h[: len(e[1, :5].unique())]),
    'index_fill': lambda h, e: h.index_fill(0, e[1, :3], 0.5),
    'index_reduce': lambda h, e: h.index_reduce(0, e[1], h[e[0]], 'prod'),
    'index_put': lambda h, e: h.index_put((e[1],), h[e[0]], accumulate=True),
    'index_put of a row': lambda h, e: h.index_put((e[1, :3],), h[0]),
    'index_put behind': lambda h, e: written(h.T.contiguous(), e[1], h[0, :, None]).T,
    'index_put by a mask': lambda h, e: h.index_put((e[0, :10] > 4,), h[0]),
    'index by a mask': lambda h, e: h[e[0, :10] > 4],
    'index by a mask of two': lambda h, e: h.unflatten(0, (2, 5))[e[0, :10].view(2, 5) > 4],
    'masked_scatter': lambda h, e: h.masked_scatter(e[0, :10, None] > 4, h.flip(0)),
    'masked_scatter of a wide mask': lambda h, e: h.masked_scatter(wide(e[0, :10] > 4, h), h + 1),
    'masked_scatter of columns': lambda h, e: h.masked_scatter(e[0, :10, None] > 4, h.view(-1)),
    'masked_scatter into a row': lambda h, e: h[:1].masked_scatter(e[0, :10, None] > 4, h),
    'masked_scatter of a stack': lambda h, e: h.masked_scatter(
        e[0, :10, None] > 4, h.view(2, 5, -1)
    ),
    'masked_scatter in place': lambda h, e: h.clone().masked_scatter_(e[0, :10, None] > 4, h * 2),
    'index by a wide mask': lambda h, e: h[wide(e[0, :10] > 4, h)].view(-1, h.shape[1]),
    'index_put by a wide mask': lambda h, e: h.index_put(
        (wide(e[0, :10] > 4, h),), h.flip(0)[e[0, :10] > 4].flatten()
    ),
    'index_put of a number': lambda h, e: h.index_put((wide(e[0, :10] > 4, h),), torch.tensor(0.5)),
    'setitem by a wide mask': lambda h, e: written_rows(h.clone(), wide(e[0, :10] > 4, h)),
    'index_put of rows of two': lambda h, e: (
        h.unflatten(0, (5, 2))
        .index_put(((e[0, :5] > 4)[:, None].expand(-1, 2),), h[0])
        .flatten(0, 1)
    ),
    'index by no mask': lambda h, e: h + h[wide(e[0, :10] > 10, h)].numel(),
    'masked_select': lambda h, e: h.masked_select(e[0, :10, None] > 4).view(-1, h.shape[1]),
    'scatter_add': lambda h, e: h.scatter_add(0, wide(e[1], h), h[e[0]]),
    'scatter_reduce': lambda h, e: h.scatter_reduce(0, wide(e[1], h), h[e[0]], 'amax'),
    'scatter': lambda h, e: h.scatter(0, wide(e[1, :1], h), h[:1]),
    'scatter of a number': lambda h, e: h.scatter(0, wide(e[1], h), 0.5),
    'gather': lambda h, e: h.gather(0, wide(e[1], h)),
    'setitem': in_place,
    'index_add in place': routed,
    'degrees': lambda h, e: h / h.new_zeros(10).index_add(0, e[1], h.new_ones(30)).add(1)[:, None],
}


@pytest.mark.parametrize('name', BESIDE)
def test_entries_are_written_beside_the_channels(name: str) -> None:
    model = randomized_network(lambda: Messages(BESIDE[name]))
    inputs = torch.randn(10, 6), torch.randint(0, 10, (2, 30))
    assert [g.size for g in easypruner.trace(model, inputs).groups.values()] == [9]
    assert not easypruner.trace(model, inputs).groups['first'].mixed
    check_rule(model, inputs)


ACROSS: dict[str, Function] = {
    'index_add': lambda h, e: h.index_add(1, e[1, :3], h[:, :3]),
    'index_copy': lambda h, e: h.index_copy(1, torch.arange(3), h[:, -3:]),
    'index_put': lambda h, e: written(h.clone(), torch.arange(3), h[:, -3:]),
    'index_put of rows': lambda h, e: h.T.index_put((torch.arange(9),), h[0, :, None]).T,
    'scatter_add': lambda h, e: h.scatter_add(1, e[0, :10, None].expand(-1, 9) % 9, h),
    'scatter of a part': lambda h, e: h.scatter(0, e[:1, :4], h[:1, :4]),
    'masked_scatter by channels': lambda h, e: h.masked_scatter(h > 0.5, h + 1),
    'masked_scatter of single entries': lambda h, e: h.masked_scatter(e[0, :9] > 4, h + 1),
    'masked_scatter of a remainder': lambda h, e: h.masked_scatter(
        e[0, :10, None] > 4, h.view(-1)[:-1]
    ),
    'a mask of channels': lambda h, e: h.index_put((h > 0.5,), torch.tensor(0.5)),
}


@pytest.mark.parametrize('name', ACROSS)
def test_channels_that_are_addressed_stay(name: str) -> None:
    model = randomized_network(lambda: Messages(ACROSS[name]))
    inputs = torch.randn(10, 6), torch.randint(0, 9, (2, 30))
    graph = easypruner.trace(model, inputs)
    assert not graph.groups
    reasons = {f.reason for f in graph.frozen if (f.param, f.dim) == ('first.weight', 0)}
    assert any('by their position' in reason for reason in reasons)


def test_a_selection_by_the_values_of_channels_keeps_them() -> None:
    model = randomized_network(lambda: Messages(lambda h, _: h + h.masked_select(h > 0.5).sum()))
    graph = easypruner.trace(model, (torch.randn(10, 6), torch.randint(0, 9, (2, 30))))
    reasons = {f.reason for f in graph.frozen if (f.param, f.dim) == ('first.weight', 0)}
    assert reasons == {
        'the shape of the result depends on values: masked_select in the model itself'
    }


def test_an_index_that_is_computed_from_channels_goes_with_them() -> None:
    """Each channel looks up its own entry of a table."""

    class Bins(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(6, 9), nn.Linear(9, 4)
            self.table = nn.Parameter(torch.randn(5))

        def forward(self, x: Tensor) -> Tensor:
            h = self.first(x)
            return self.last(h * self.table[(h.sigmoid() * 5).long()])

    check_rule(randomized_network(Bins), torch.randn(10, 6))
