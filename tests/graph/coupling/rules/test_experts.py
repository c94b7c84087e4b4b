"""Mixtures of experts: their inner width, in each way to run them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import easypruner
from easypruner.testing import check_rule, randomized_network

EXPERTS, WIDTH, INNER = 4, 8, 12


class Experts(nn.Module):
    """Each token passes the two experts that its gate prefers.

    Args:
        way: how the experts run.
    """

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.first, self.last = way, nn.Linear(5, WIDTH), nn.Linear(WIDTH, 3)
        self.gate = nn.Linear(WIDTH, EXPERTS, bias=False)
        self.up = nn.Parameter(torch.randn(EXPERTS, 2 * INNER, WIDTH))
        self.up_bias = nn.Parameter(torch.randn(EXPERTS, 2 * INNER))
        self.down = nn.Parameter(torch.randn(EXPERTS, WIDTH, INNER))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        weights, chosen = self.gate(x).softmax(-1).topk(2, -1)
        tokens = x.repeat_interleave(2, 0)
        y = getattr(self, self.way)(tokens, chosen.flatten()) * weights.flatten()[:, None]
        return self.last(x + y.view(-1, 2, y.shape[-1]).sum(1))

    def activate(self, x: Tensor) -> Tensor:
        gate, x = x.chunk(2, -1)
        return functional.silu(gate) * x

    def grouped(self, x: Tensor, chosen: Tensor) -> Tensor:
        order = chosen.argsort()
        last = self.gate.out_features - 1
        counts = torch.histc(chosen[order].float(), bins=last + 1, min=0, max=last)
        ends = counts.cumsum(0).to(torch.int32)
        y = torch._grouped_mm(x[order], self.up.transpose(1, 2), offs=ends)
        y = self.activate(y + self.up_bias[chosen[order]])
        return torch._grouped_mm(y, self.down.transpose(1, 2), offs=ends)[order.argsort()]

    def batched(self, x: Tensor, chosen: Tensor) -> Tensor:
        y = torch.bmm(self.up[chosen], x[:, :, None])[..., 0] + self.up_bias[chosen]
        return torch.bmm(self.down[chosen], self.activate(y)[:, :, None])[..., 0]

    def looped(self, x: Tensor, chosen: Tensor) -> Tensor:
        out = torch.zeros_like(x)
        for number in range(EXPERTS):
            (rows,) = torch.where(chosen == number)
            y = functional.linear(x[rows], self.up[number], self.up_bias[number])
            out.index_add_(0, rows, functional.linear(self.activate(y), self.down[number]))
        return out

    def dense(self, x: Tensor, chosen: Tensor) -> Tensor:
        y = torch.einsum('tc,eic->tei', x, self.up) + self.up_bias
        y = torch.einsum('tei,eci->tec', self.activate(y), self.down)
        return (y * functional.one_hot(chosen, self.gate.out_features)[..., None]).sum(1)

    def gathered(self, x: Tensor, chosen: Tensor) -> Tensor:
        flags = x.new_zeros(len(x), self.gate.out_features).scatter(1, chosen[:, None], 1.0)
        y = torch.bmm(self.up[chosen], x[:, :, None])[..., 0] + flags @ self.up_bias
        return torch.bmm(self.down[chosen], self.activate(y)[:, :, None])[..., 0]


needs_grouped = pytest.mark.skipif(
    torch.__version__ < '2.10', reason='grouped products run on CPUs since torch 2.10'
)


@pytest.mark.parametrize(
    'way', ['batched', 'looped', 'dense', pytest.param('grouped', marks=needs_grouped)]
)
def test_all_experts_lose_the_same_inner_width(way: str) -> None:
    model = randomized_network(lambda: Experts(way))
    inputs = torch.randn(6, 5)
    graph = easypruner.trace(model, inputs)
    (inner,) = (g for g in graph.groups.values() if g.size == INNER)
    assert not inner.mixed
    assert {(m.param, m.dim, m.role) for m in inner.members} == {
        ('up', 1, 'out'), ('up_bias', 1, 'out'), ('down', 2, 'in')
    }  # fmt: skip
    check_rule(model, inputs)


@pytest.mark.parametrize(
    'way', ['batched', 'dense', 'gathered', pytest.param('grouped', marks=needs_grouped)]
)
def test_whole_experts_go_with_their_rows_of_the_router(way: str) -> None:
    """The network without an expert is that whose router never chooses it."""
    model = randomized_network(lambda: Experts(way))
    inputs = torch.randn(6, 5)
    graph = easypruner.trace(model, inputs)
    if way == 'dense':  # two dimensions of each weight are merged, so only one of them may go
        assert 'gate' not in graph.groups
        return
    members = {(m.param, m.dim) for m in graph.groups['gate'].members}
    assert members == {('gate.weight', 0), ('up', 0), ('up_bias', 0), ('down', 0)}
    assert graph.groups['gate'].mixed and graph.limits['gate'].min_units == 2
    keep = torch.tensor([True, False, True, True])

    def forbid(gate: nn.Module, inputs: tuple[Tensor, ...], logits: Tensor) -> Tensor:
        return logits.masked_fill(~keep, -torch.inf)

    hook = model.gate.register_forward_hook(forbid)
    expected = model(inputs)
    hook.remove()
    easypruner.prune(model, {'gate': keep}, graph=graph)
    assert model.gate.out_features == len(model.up) == len(model.down) == 3
    torch.testing.assert_close(model(inputs), expected)


USES = {
    'as a value': lambda net, values, chosen: chosen.to(values.dtype),
    'compared': lambda net, values, chosen: values * (chosen == 2),
    'not at all': lambda net, values, chosen: values,
    'as an output': lambda net, values, chosen: (values * net.table[chosen], chosen),
}


@pytest.mark.parametrize('use', USES)
def test_channels_that_are_chosen_otherwise_stay(use: str) -> None:
    class Chosen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(5, 8), nn.Linear(2, 3)
            self.table = nn.Parameter(torch.randn(8))

        def forward(self, x: Tensor) -> Any:
            used = USES[use](self, *self.first(x).topk(2, -1))
            return (self.last(used[0]), used[1]) if type(used) is tuple else self.last(used)

    graph = easypruner.trace(randomized_network(Chosen), torch.randn(6, 5))
    (reason,) = {f.reason for f in graph.frozen if (f.param, f.dim) == ('first.weight', 0)}
    reasons = 'channels are sorted', 'as values', 'an output of the model'
    assert not graph.groups and any(each in reason for each in reasons)


@needs_grouped
def test_widths_of_grouped_products_are_multiples_of_16_bytes() -> None:
    model = randomized_network(lambda: Experts('grouped'))
    inputs = torch.randn(6, 5)
    graph = easypruner.trace(model, inputs)
    assert {name: limits.step for name, limits in graph.limits.items()} == {
        'first': 4, 'up': 4, 'gate': 1
    }  # fmt: skip
    own = easypruner.trace(model, inputs, limits={'up': dict(round_to=6), '*': dict(min_units=3)})
    assert (own.limits['up'].step, own.limits['first'].step) == (12, 4)
    assert own.limits['first'].min_units == 3
    own.set_limits({})
    assert own.limits['up'].step == 4
    masks = {'first': torch.arange(WIDTH) % 2 == 0, 'up': torch.arange(INNER) % 3 < 2}
    easypruner.prune(model, masks, graph=graph)
    assert model(inputs).shape == (6, 3) and model.up.shape == (EXPERTS, 16, 4)
