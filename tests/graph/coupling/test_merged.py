"""Merged dimensions of which several lose indices, and reasons that several parameters share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import easypruner
from easypruner.testing import random_masks, randomized_network

HEADS, WIDTH = 4, 6


class Einsums(nn.Module):
    """An attention whose weights have a dimension for heads, and one for their width."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (
            nn.Parameter(torch.randn(8, HEADS, WIDTH)) for _ in range(4)
        )
        self.bias = nn.Parameter(torch.randn(HEADS, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (torch.einsum('bih,hnd->bind', x, w) for w in (self.q, self.k, self.v))
        scores = torch.einsum('bind,bjnd->bnij', q + self.bias, k).softmax(-1)
        return torch.einsum('bind,hnd->bih', torch.einsum('bnij,bjnd->bind', scores, v), self.o)


def test_heads_and_widths_of_one_weight_are_cut_alone() -> None:
    model, x = randomized_network(Einsums), torch.randn(2, 5, 8)
    graph = easypruner.trace(model, x)
    assert {name: group.size for name, group in graph.groups.items()} == {
        'q': HEADS, 'q#2': WIDTH, 'v': WIDTH,
    }  # fmt: skip
    assert easypruner.verify(model, random_masks(graph), x, graph=graph).passed


def test_pruned_heads_are_heads_that_nothing_reads() -> None:
    model, whole, x = randomized_network(Einsums), randomized_network(Einsums), torch.randn(2, 5, 8)
    graph = easypruner.trace(model, x)
    masks = {'q': torch.tensor([True, False, True, True]), 'v': torch.arange(WIDTH) != 2}
    before, predicted = graph.cost().macs, graph.cost(masks)
    easypruner.prune(model, masks, graph=graph)
    with torch.no_grad():
        whole.o[:, 1] = 0
        whole.o[:, :, 2] = 0
    assert torch.allclose(model(x), whole(x), atol=1e-4)
    assert model.q.shape == (8, 3, 6)
    assert model.v.shape == model.o.shape == (8, 3, 5)
    # 2 x 5 rows are multiplied by four weights; 2 x 5 x 5 pairs by queries, then by values.
    assert before == 10 * 4 * 8 * 24 + 50 * 2 * 24
    assert predicted.macs == 10 * 8 * (2 * 18 + 2 * 15) + 50 * (18 + 15)
    assert predicted.params == sum(p.numel() for p in model.parameters())


class Tokens(nn.Module):
    """Steps are added where a view counts six; places are merged of rows and columns."""

    def __init__(self) -> None:
        super().__init__()
        self.make, self.more, self.last = nn.Linear(4, 48), nn.Linear(4, 120), nn.Linear(8, 2)
        self.steps = nn.Parameter(torch.randn(1, 6, 8))
        self.rows = nn.Parameter(torch.randn(3, 1))
        self.columns = nn.Parameter(torch.randn(1, 5))
        self.places = nn.Parameter(torch.randn(15))

    def forward(self, x: Tensor) -> Tensor:
        places = (self.rows + self.columns).flatten() + self.places
        tokens = self.more(x).unflatten(1, (15, -1)) * self.places[:, None]
        parts = (self.make(x).unflatten(1, (6, -1)) + self.steps).chunk(6, dim=1)
        return self.last(sum(parts) + tokens) + places.sum()


def test_each_parameter_stays_for_reasons_of_its_own() -> None:
    """What stays for one of two reasons of another parameter does not stay for both."""
    graph = easypruner.trace(randomized_network(Tokens), torch.randn(1, 4))
    reasons = {(f.param, f.dim): f.reason for f in graph.frozen}
    assert reasons['rows', 0].startswith('several dimensions are merged')
    assert reasons['places', 0].startswith('an output of the model')
    assert reasons['steps', 1].startswith('channels are split into dimensions')
    assert reasons['last.weight', 0].startswith('an output of the model')


class Outer(nn.Module):
    """A layer reads the products of all channels of one map with all of another."""

    def __init__(self, left: int, right: int) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, left, 3), nn.Conv2d(3, right, 3)
        self.last = nn.Linear(left * right, 2)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.left(x).flatten(2), self.right(x).flatten(2)
        return self.last((left @ right.transpose(1, 2)).flatten(1).tanh())


@pytest.mark.parametrize(('sizes', 'lead'), [((8, 6), 'left'), ((4, 6), 'right')])
def test_the_larger_of_two_merged_dimensions_loses_channels(
    sizes: tuple[int, int], lead: str
) -> None:
    model, x = randomized_network(lambda: Outer(*sizes)), torch.randn(2, 3, 6, 6)
    graph = easypruner.trace(model, x)
    assert {name: group.size for name, group in graph.groups.items()} == {lead: max(sizes)}
    whole, mask = randomized_network(lambda: Outer(*sizes)), torch.arange(max(sizes)) % 3 > 0
    easypruner.prune(model, {lead: mask}, graph=graph)
    with torch.no_grad():
        products = whole.last.weight.view(2, *sizes)
        (products if lead == 'left' else products.mT)[:, ~mask] = 0
    assert torch.allclose(model(x), whole(x), atol=1e-5)


ROWS, COLUMNS = 4, 6
USES: dict[str, Callable[[Tensor], Tensor]] = {
    'looked up': lambda x: x[:, torch.tensor([0, 5, 7, 23])],
    'selected': lambda x: x.index_select(1, torch.tensor([1, 22])),
    'sliced': lambda x: x[:, 3:20],
    'last': lambda x: x[:, -1:],
    'tiled': lambda x: x.repeat(1, 2)[:, 20:30],
    'repeated': lambda x: x.repeat_interleave(2, 1)[:, :40],
    'joined': lambda x: torch.cat([x, x.flip(1)], 1)[:, 20:30],
    'added to numbers': lambda x: x + torch.arange(24.0),
    'multiplied by numbers': lambda x: x @ torch.linspace(0, 1, 48).view(24, 2),
    'split in another way': lambda x: x.unflatten(1, (8, 3)).sum(1),
    'cut in halves': lambda x: torch.chunk(x, 2, 1)[0],
    'shuffled': lambda x: x.view(-1, 2, 12).transpose(1, 2).reshape(-1, 24),
    'returned': lambda x: x,
    'sorted': lambda x: x.sort(1).values[:, :5],
    'padded': lambda x: nn.functional.pad(x, (0, 3))[:, 5:26],
    'normed in groups': lambda x: nn.functional.group_norm(x[..., None], 3)[..., 0],
    'rolled': lambda x: x.roll(3, 1),
    'of a matrix': lambda x: (x.view(-1, 3, 8) @ torch.eye(8)).flatten(1),
    'gathered': lambda x: x.gather(1, torch.tensor([[0, 20, 3], [1, 2, 23]])),
}


@pytest.mark.parametrize('use', USES)
def test_a_cut_fits_what_uses_merged_dimensions_as_one(use: str) -> None:
    """What uses them knows nothing of two factors, so that both may not lose channels."""

    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rows, self.columns = nn.Linear(3, ROWS), nn.Linear(3, COLUMNS)
            self.first, self.last = nn.Linear(3, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            table = (self.rows(x)[:, :, None] * self.columns(x)[:, None]).flatten(1)
            return USES[use](table).tanh().sum(1) + self.last(self.first(x)).sum(1)

    model, x = randomized_network(Table), torch.randn(2, 3)
    graph = easypruner.trace(model, x)
    assert 'first' in graph.groups
    for seed in range(3):
        masks = random_masks(graph, seed=seed)
        assert easypruner.verify(model, masks, x, graph=graph).passed


@pytest.mark.parametrize('rows', [3, 40])
def test_coordinates_of_a_codebook_are_cut_with_what_is_compared(rows: int) -> None:
    """Torch computes distances in another way for many rows."""

    class Codes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(5, 7), nn.Linear(7, 2)
            self.codes = nn.Embedding(rows, 7)

        def forward(self, x: Tensor) -> Tensor:
            found = self.first(x)
            return self.last(self.codes(torch.cdist(found, self.codes.weight).argmin(-1)))

    model, x = randomized_network(Codes), torch.randn(40, 5)
    graph = easypruner.trace(model, x)
    assert [group.size for group in graph.groups.values()] == [7]
    (name,) = graph.groups
    mask = torch.arange(7) > 2
    whole = randomized_network(Codes)
    easypruner.prune(model, {name: mask}, graph=graph)
    with torch.no_grad():  # a coordinate that is zero on both sides adds nothing to a distance
        for tensor in (whole.first.weight, whole.first.bias, whole.codes.weight.T):
            tensor[~mask] = 0
    assert torch.allclose(model(x), whole(x), atol=1e-5)
