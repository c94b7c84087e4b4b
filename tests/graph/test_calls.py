"""Several calls of a network: a cut is traced for all of them, and verified on all of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import easypruner
from easypruner.errors import ConfigError, TraceError
from easypruner.testing import randomized_network


class Decoder(nn.Module):
    """Its ordinary pass reads the width of the state; a step with a cache also reads the other."""

    def __init__(self) -> None:
        super().__init__()
        self.width, self.cached = 8, 8
        self.embed, self.mix, self.head = nn.Linear(3, 8), nn.Linear(8, 8), nn.Linear(8, 5)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor, cache: list[Tensor] | None = None) -> Tensor:
        state = self.mix(self.drop(self.embed(x)).relu()).view(len(x), -1, self.width)
        if cache is not None:
            if not cache:
                cache.append(state.new_zeros(len(x), 1, self.cached))
            state = cache[0] = cache[0] + state
        return self.head(state)


STEPS = torch.randn(2, 2, 3)


def decode(model: nn.Module) -> Tensor:
    """Take two steps with a cache, from inputs in single precision."""
    cache: list[Tensor] = []
    return torch.cat([model(STEPS[:, :1], cache), model(STEPS[:, 1:], cache)], 1)


def train(model: nn.Module) -> Tensor:
    """Run a training pass."""
    model.train()
    output: Tensor = model(torch.ones(4, 2, 3))
    return output


CALLS: list[Any] = [
    decode,
    train,
    torch.ones(5, 1, 3),
    (torch.ones(1, 2, 3),),
    {'x': torch.ones(3, 1, 3)},
]


def halves(graph: easypruner.graph.ChannelGraph) -> dict[str, Tensor]:
    return {name: torch.arange(group.size) % 2 == 0 for name, group in graph.groups.items()}


def test_numbers_of_all_calls_are_repaired() -> None:
    model, images = randomized_network(Decoder), torch.randn(2, 4, 3)
    alone = easypruner.trace(model, images)
    assert {name for _, name in alone.attributes(halves(alone))} == {'width'}
    graph = easypruner.trace(model, images, calls=CALLS)
    masks = halves(graph)
    found = easypruner.verify(model, masks, images, graph=graph, calls=CALLS)
    assert found.passed and len(found.errors) == 1 + len(CALLS)
    assert found.error == max(found.errors) < 1e-12
    assert easypruner.verify(model, masks, images, calls=CALLS).passed
    assert graph.cost() == alone.cost(), 'the cost is that of the example inputs'
    training = [module.training for module in model.modules()]
    easypruner.prune(model, masks, graph=graph)
    assert (model.width, model.cached) == (4, 4)
    assert decode(model).shape == (2, 2, 5)
    assert [module.training for module in model.modules()] == training


def test_a_call_that_the_cut_breaks_is_named() -> None:
    model, images = randomized_network(Decoder), torch.randn(2, 4, 3)
    graph = easypruner.trace(model, images)
    assert easypruner.verify(model, halves(graph), images, graph=graph).passed
    with pytest.raises(TraceError, match=r'calls\[1\] of the pruned Decoder fails.*calls=\['):
        easypruner.verify(model, halves(graph), images, graph=graph, calls=[images, decode])


class Contradiction(nn.Module):
    """A number that is a width in one call, and something else in another."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 8
        self.embed, self.head = nn.Linear(3, 8), nn.Linear(8, 5)

    def forward(self, x: Tensor, rows: bool = False) -> Tensor:
        y = self.embed(x)
        return self.head(y.view(self.size, -1, y.shape[-1]) if rows else y.view(8, -1, self.size))


def test_a_number_that_calls_need_at_different_values_freezes_its_group() -> None:
    model, rows = randomized_network(Contradiction), {'x': torch.ones(8, 2, 3), 'rows': True}
    images = torch.randn(8, 2, 3)
    assert easypruner.trace(model, images).groups
    for first, others in ((images, [rows]), (rows, [images])):
        graph = easypruner.trace(model, first, calls=others)
        assert not graph.groups
        assert graph.attributes({}) == {('', 'size'): 8}
        assert any('does not follow a cut' in entry.reason for entry in graph.frozen)


class TwoWidths(nn.Module):
    """A number that is one width in one call, and another in another."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 8
        self.embed, self.mix, self.head = nn.Linear(3, 8), nn.Linear(8, 8), nn.Linear(8, 5)

    def forward(self, x: Tensor, late: bool = False) -> Tensor:
        y = self.embed(x)
        y = self.mix(y if late else y.view(len(x), -1, self.size))
        return self.head(y.view(len(x), -1, self.size) if late else y)


def test_a_number_that_is_a_different_width_in_each_call_does_not_alternate() -> None:
    model, images = randomized_network(TwoWidths), torch.randn(4, 2, 3)
    calls = [lambda model: model(images, late=True), images]
    graph = easypruner.trace(model, images, calls=calls)
    assert len(graph.groups) == 1
    assert easypruner.verify(model, halves(graph), images, graph=graph, calls=calls).passed


def test_a_call_that_fails_by_itself_is_named() -> None:
    with pytest.raises(TraceError, match=r'calls\[1\]: the forward pass of Decoder fails'):
        easypruner.trace(Decoder(), torch.randn(2, 4, 3), calls=[decode, torch.ones(2, 7)])


@pytest.mark.parametrize('calls', [decode, torch.ones(1), {'x': torch.ones(1)}])
def test_calls_are_listed(calls: Any) -> None:
    model, images = randomized_network(Decoder), torch.randn(2, 4, 3)
    with pytest.raises(ConfigError, match=r'calls: expected a list .* got .*calls=\[\.\.\.\]'):
        easypruner.trace(model, images, calls=calls)
    with pytest.raises(ConfigError, match=r'calls: expected a list'):
        easypruner.verify(model, {}, images, calls=calls)
