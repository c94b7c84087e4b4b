"""Tensors in plain attributes: tables that a network has made once are cut like its buffers."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils import weight_norm

import easypruner
from easypruner.graph.recording.inventory import Inventory
from easypruner.testing import randomized_network

TOKENS = torch.rand(2, 6, 5, generator=torch.Generator().manual_seed(0))


class Placed(nn.Module):
    """Adds a table of positions that is no buffer, keeps what it last saw, and half of a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner, self.last = nn.Linear(5, 8), nn.Linear(8, 12), nn.Linear(12, 3)
        self.positions = torch.linspace(-1, 1, 48).view(6, 8)
        self.register_buffer('shifts', torch.linspace(0, 1, 24))
        self.half = self.shifts[:12]
        self.seen = torch.zeros(1, 6, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x) + self.positions.to(x)
        self.seen = x.detach()
        return self.last(self.inner(x) + self.half)


def test_a_table_in_an_attribute_is_cut_with_the_channels_it_is_added_to() -> None:
    net = randomized_network(Placed)
    graph = easypruner.trace(net, TOKENS)
    assert {m.param for m in graph.groups['first'].members} >= {'positions', 'inner.weight'}
    masks = {'first': torch.tensor([True, False] * 4)}
    assert easypruner.verify(net, masks, TOKENS, graph=graph).error < 1e-12
    positions, average = net.positions[:, ::2].clone(), copy.deepcopy(net)
    net(TOKENS[:1])  # another state than that of the copy
    record = easypruner.prune(net, masks, graph=graph, copies=[average])
    assert torch.equal(net.positions, positions) and torch.equal(average.positions, positions)
    assert torch.equal(average(TOKENS), net(TOKENS))
    again = easypruner.load_pruned(Placed, net.state_dict(), record).eval()
    assert torch.equal(again(TOKENS), net(TOKENS)) and again.positions.shape == (6, 4)


def test_what_shares_memory_with_a_buffer_stays() -> None:
    net = randomized_network(Placed)
    assert Inventory(net).plain == {'positions', 'seen'}
    graph = easypruner.trace(net, TOKENS)
    (reason,) = {e.reason for e in graph.frozen if (e.param, e.dim) == ('inner.weight', 0)}
    assert reason.startswith('a constant tensor')


def test_a_weight_that_a_hook_makes_is_no_table() -> None:
    net = nn.Sequential(weight_norm(nn.Linear(5, 8)), nn.Linear(8, 3)).requires_grad_(False)
    net(TOKENS)
    assert not Inventory(net).plain
    assert easypruner.trace(net, TOKENS).groups.keys() == {'0.weight_v'}


class Listed(nn.Module):
    """Registers the parameters of layers, and has the layers in a plain list."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = [nn.Linear(5, 8), nn.Linear(8, 3)]
        self.weights = nn.ParameterList(p for layer in self.layers for p in layer.parameters())
        self.spare = nn.Parameter(torch.rand(4))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def test_parameters_that_unregistered_modules_read_are_not_called_unused() -> None:
    graph = easypruner.trace(Listed(), TOKENS)
    reasons = {(entry.param, entry.dim): entry.reason for entry in graph.frozen}
    assert not graph.groups and 'does not register' in reasons['weights.0', 0]
    assert reasons['spare', 0] == 'not used in the forward pass'
    assert graph.explain('weights.0', 0, 1).reason == reasons['weights.0', 0]
