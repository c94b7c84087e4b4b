"""Heads of attention: whole heads, and heads of queries alone, in each form of attention."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import easypruner
from easypruner.testing import random_masks, randomized_network

WIDTH = 4


class Attention(nn.Module):
    """Eight heads of queries share the heads of keys and values.

    Args:
        shared: how many heads of keys there are.
        form: computes the attention of the module's queries, keys and values.
        numbered: whether views name the number of heads, or find it.
    """

    def __init__(self, shared: int, form: Callable, numbered: bool = False) -> None:
        super().__init__()
        self.form, self.numbered = form, numbered
        self.heads, self.shared, self.repeats, self.width = 8, shared, 8 // shared, WIDTH
        self.register_buffer('scale', torch.ones(()))
        self.q, self.o = nn.Linear(12, 8 * WIDTH), nn.Linear(8 * WIDTH, 12)
        self.k, self.v = nn.Linear(12, shared * WIDTH), nn.Linear(12, shared * WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        heads = (self.heads, self.shared, self.shared) if self.numbered else (-1, -1, -1)
        q, k, v = (
            layer(x).view(*x.shape[:2], count, self.width).transpose(1, 2)
            for layer, count in zip((self.q, self.k, self.v), heads, strict=True)
        )
        return self.o(self.form(self, q, k, v).transpose(1, 2).reshape(*x.shape[:2], -1))


def interleaved(net: Attention, x: Tensor) -> Tensor:
    return x.repeat_interleave(net.repeats, dim=1)


def expanded(net: Attention, x: Tensor) -> Tensor:
    n, heads, length, width = x.shape
    return x[:, :, None].expand(n, heads, net.repeats, length, width).reshape(n, -1, length, width)


def fused(net: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    k, v = interleaved(net, k), expanded(net, v)
    return functional.scaled_dot_product_attention(q, k, v, is_causal=True)


def sharing(net: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)


def on_values(net: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The network asks for a value, so that it runs on real tensors and their fused kernel."""
    return sharing(net, q * net.scale.item(), k, v)


def eager(net: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    k, v = expanded(net, k), interleaved(net, v)
    return (q @ k.transpose(-1, -2)).softmax(-1) @ v


def einsum(net: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    k, v = expanded(net, k), expanded(net, v)
    scores = torch.einsum('bhqd,bhkd->bhqk', q, k).softmax(-1)
    return torch.einsum('bhqk,bhkd->bhqd', scores, v)


def grouped(net: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q = q.unflatten(1, (k.shape[1], -1))
    scores = (q @ k[:, :, None].transpose(-1, -2)).softmax(-1)
    return (scores @ v[:, :, None]).flatten(1, 2)


def flexible(net: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    flex = pytest.importorskip('torch.nn.attention.flex_attention')

    def relative(score: Tensor, batch: Tensor, head: Tensor, row: Tensor, key: Tensor) -> Tensor:
        return score + (row - key) * 0.5

    return flex.flex_attention(q, k, v, score_mod=relative, enable_gqa=True)


FORMS = [fused, sharing, on_values, eager, einsum, grouped]
if hasattr(torch.compiler, 'set_stance'):
    FORMS.append(flexible)


CASES = [(4, 'heads', 4), (2, 'query_heads', 4)]
EVERY = [*CASES, (8, 'heads', 8), (1, 'heads', 8), (1, 'query_heads', 8), (8, 'query_heads', 8)]


@pytest.mark.filterwarnings('ignore:flex_attention called without')
@pytest.mark.parametrize(
    ('form', 'shared', 'attention', 'units'),
    [(form, *case) for form in FORMS for case in (EVERY if form is sharing else CASES)],
)
def test_heads_go_with_those_that_share_keys(
    form: Callable, shared: int, attention: str, units: int
) -> None:
    if form in (sharing, on_values) and torch.__version__ < '2.5':
        pytest.skip('enable_gqa is there since torch 2.5')
    model = randomized_network(lambda: Attention(shared, form, numbered=form is fused))
    model.requires_grad_(False)  # flex attention on the CPU has no gradient
    inputs = torch.randn(2, 5, 12)
    graph = easypruner.trace(model, inputs, attention=attention)  # type: ignore[arg-type]
    assert [(group.size, group.mixed) for group in graph.groups.values()] == [(units, ())]
    masks = random_masks(graph)
    assert easypruner.verify(model, masks, inputs, graph=graph).passed
    easypruner.prune(model, masks, graph=graph)
    kept = int(masks['q'].sum()) * WIDTH * (1 if shared == 1 or units == 8 else 8 // units)
    alone = shared == 1 or (attention == 'query_heads' and shared < 8)
    assert model.q.out_features == model.o.in_features == kept
    assert (
        model.k.out_features
        == model.v.out_features
        == (shared * WIDTH if alone else int(masks['q'].sum()) * WIDTH)
    )


def test_a_mask_of_each_head_keeps_all_heads() -> None:
    """A function of scores that reads the number of a head would read another one after a cut."""
    flex = pytest.importorskip('torch.nn.attention.flex_attention')

    def sloped(net: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        slopes = torch.arange(8) / 8
        return flex.flex_attention(q, k, v, score_mod=lambda s, b, h, i, j: s * slopes[h])

    if not hasattr(torch.compiler, 'set_stance'):
        pytest.skip('needs torch 2.6')
    model = randomized_network(lambda: Attention(8, sloped)).requires_grad_(False)
    assert not easypruner.trace(model, torch.randn(2, 5, 12), attention='heads').groups


def test_groups_of_queries_are_as_wide_as_before_if_widths_go() -> None:
    model = randomized_network(lambda: Attention(2, eager))
    graph = easypruner.trace(model, torch.randn(2, 5, 12))
    assert [group.size for group in graph.groups.values()] == [WIDTH]


def test_a_tensor_repeated_beside_channels_follows_them() -> None:
    """Copies may be merged with channels: they stay, unless something else decides otherwise."""

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(6, 8), nn.Linear(24, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x)[..., None].expand(-1, -1, 3).flatten(1).sigmoid())

    model = randomized_network(Tokens)
    graph = easypruner.trace(model, torch.randn(5, 6))
    assert [group.size for group in graph.groups.values()] == [8]
    masks = {'first': torch.arange(8) % 3 != 1}
    assert easypruner.verify(model, masks, torch.randn(5, 6), graph=graph).passed


class SharedByAll(nn.Module):
    """One layer makes the queries of all heads, and one key and one value that they share.

    Args:
        shaped: returns queries, keys and values from what the layer makes.
        form: computes the attention.
    """

    def __init__(self, shaped: Callable, form: Callable) -> None:
        super().__init__()
        self.shaped, self.form = shaped, form
        self.heads, self.width = 5, WIDTH
        self.all = self.heads * self.width
        self.qkv = nn.Linear(12, (self.heads + 2) * self.width)
        self.o = nn.Linear(self.all, 12)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.shaped(self, self.qkv(x))
        return self.o(self.form(self, q, k, v).transpose(1, 2).reshape(*x.shape[:2], -1))


def by_sizes(net: SharedByAll, x: Tensor) -> tuple[Tensor, ...]:
    q, k, v = x.unsqueeze(1).split((net.all, net.width, net.width), dim=-1)
    return q.view(*x.shape[:2], -1, net.width).transpose(1, 2), k, v


def repeated(net: SharedByAll, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    n, _, length, width = k.shape
    k, v = (t[:, :, None].expand(n, 1, q.shape[1], length, width).flatten(1, 2) for t in (k, v))
    return functional.scaled_dot_product_attention(q, k, v, is_causal=True)


def broadcast(net: SharedByAll, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(-1, -2)).softmax(-1) @ v


@pytest.mark.parametrize('shaped', [by_sizes])
@pytest.mark.parametrize('form', [repeated, broadcast])
@pytest.mark.parametrize('attention', ['heads', 'query_heads'])
def test_heads_of_queries_go_where_all_share_one_key(
    shaped: Callable, form: Callable, attention: Any
) -> None:
    model, x = randomized_network(lambda: SharedByAll(shaped, form)), torch.randn(2, 6, 12)
    whole = copy.deepcopy(model)
    graph = easypruner.trace(model, x, attention=attention)
    assert [(group.size, group.mixed) for group in graph.groups.values()] == [(5, ())]
    mask = torch.tensor([True, False, True, True, False])
    easypruner.prune(model, {'qkv': mask}, graph=graph)
    rows = torch.cat([mask, torch.tensor([True, True])]).repeat_interleave(WIDTH)
    assert torch.equal(model.qkv.weight, whole.qkv.weight[rows])
    with torch.no_grad():
        whole.o.weight[:, ~mask.repeat_interleave(WIDTH)] = 0
    assert torch.allclose(model(x), whole(x), atol=1e-5)


class LearnedQueries(nn.Module):
    """Learned queries read a sequence; scores are scaled by the root of the width of a head."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.queries, self.form, self.heads = nn.Parameter(torch.randn(3, 10)), form, 4
        self.q, self.k, self.v = nn.Linear(10, 16), nn.Linear(6, 16), nn.Linear(6, 16)
        self.last = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            layer(y).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, y in (
                (self.q, self.queries.expand(len(x), -1, -1)), (self.k, x), (self.v, x),
            )
        )  # fmt: skip
        if self.form == 'fused':
            y = nn.functional.scaled_dot_product_attention(q, k, v)
        else:
            y = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1) @ v
        return self.last(y.transpose(1, 2).flatten(2))


@pytest.mark.parametrize('attention', ['width', 'heads'])
@pytest.mark.parametrize('form', ['fused', 'eager'])
def test_the_scale_of_learned_queries_depends_on_their_width(form: str, attention: str) -> None:
    model, x = randomized_network(lambda: LearnedQueries(form)), torch.randn(2, 5, 6)
    graph = easypruner.trace(model, x, attention=attention)  # type: ignore[arg-type]
    assert bool(graph.groups['q'].mixed) == (attention == 'width')
    assert {m.role for m in graph.groups['q'].members if m.param[0] in 'qk'} == {'out'}
    masks = random_masks(graph)
    assert easypruner.verify(model, masks, x, graph=graph).error < 1e-12
    easypruner.prune(model, masks, graph=graph)
    model(x)


class Interaction(nn.Module):
    """Multiplies the embeddings of all features with each other, and reads each pair once."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(5, 8) for _ in range(3))
        self.dense, self.width = nn.Linear(6, 8), 8
        self.top = nn.Linear(8 + 6, 2)

    def forward(self, x: Tensor, ids: Tensor) -> Tensor:
        dense = self.dense(x)
        found = [table(ids[:, number]) for number, table in enumerate(self.tables)]
        features = torch.cat([dense, *found], 1).view(len(x), -1, self.width)
        products = torch.bmm(features, features.transpose(1, 2))
        rows, columns = torch.tril_indices(4, 4, -1)
        return self.top(torch.cat([dense, products[:, rows, columns]], 1))


@pytest.mark.parametrize('attention', ['width', 'heads'])
def test_products_of_features_lose_the_width_of_all_of_them(attention: str) -> None:
    net, inputs = randomized_network(Interaction), (torch.rand(2, 6), torch.tensor([[1, 2, 3]] * 2))
    graph = easypruner.trace(net, inputs, attention=attention)
    group = graph.groups['dense']
    assert group.size == 8 and 'tables.2.weight' in {member.param for member in group.members}
    easypruner.prune(net, {'dense': torch.arange(8) < 5}, graph=graph)
    assert net.width == 5 and net(*inputs).shape == (2, 2)


class SharedLinear(nn.Module):
    """Linear attention whose heads of queries share one head of keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(6, 3 * WIDTH), nn.Linear(6, WIDTH), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        q = self.q(x).view(*x.shape[:2], 3, -1)
        context = torch.einsum('nlk,nlv->nkv', self.k(x).softmax(1), self.v(x))
        return torch.einsum('nlhk,nkv->nlhv', q, context).flatten(2)


def test_the_width_of_heads_goes_if_the_output_needs_all_heads() -> None:
    net, x = SharedLinear(), torch.rand(2, 7, 6)
    graph = easypruner.trace(net, x)
    assert {name: group.size for name, group in graph.groups.items()} == {'q': WIDTH}
    keep = torch.tensor([True, False, True, False])
    with torch.no_grad():
        net.k.weight[~keep], net.k.bias[~keep] = 0.0, 0.0
        net.q.weight.unflatten(0, (3, WIDTH))[:, ~keep] = 0.0
        net.q.bias.unflatten(0, (3, WIDTH))[:, ~keep] = 0.0
    expected = net(x)
    easypruner.prune(net, {'q': keep}, graph=graph)
    torch.testing.assert_close(net(x), expected)
