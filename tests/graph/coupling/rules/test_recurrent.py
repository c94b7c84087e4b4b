"""Recurrent layers: hidden units go with all their gates, and the layers know their widths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import easypruner
from easypruner.testing import randomized_network


class Sequence(nn.Module):
    """A recurrent layer between two linear ones; it may read values, which needs real tensors.

    Then torch runs an LSTM as one operation.
    """

    def __init__(self, layer: nn.Module, width: int, looks: bool = False) -> None:
        super().__init__()
        self.before, self.layer, self.after = nn.Linear(6, 7), layer, nn.Linear(width, 3)
        self.looks = looks

    def forward(self, x: Tensor) -> Tensor:
        steps = len(x) if not self.looks or float(x.sum()) else 0
        return self.after(self.layer(self.before(x[:steps]))[0])


class OwnStates(nn.Module):
    """Makes its first states itself, of a width that it remembers."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = 8
        self.before, self.after = nn.Linear(6, 7), nn.Linear(8, 3)
        self.layer = nn.LSTM(7, 8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        states = tuple(torch.zeros(2, len(x), self.hidden, dtype=x.dtype) for _ in range(2))
        output, (hidden, _) = self.layer(self.before(x), states)
        return self.after(output + hidden[-1][:, None])


class Cells(nn.Module):
    """Two cells on top of each other, stepped through by hand."""

    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.first, self.second = kind(6, 8), kind(8, 5)
        self.after = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        first = second = None
        for step in x:
            first = self.first(step, first)
            second = self.second(first[0] if isinstance(first, tuple) else first, second)
        return self.after(second[0] if isinstance(second, tuple) else second)


def steps(batch: int = 3) -> Tensor:
    return torch.randn(4, batch, 6, generator=torch.Generator().manual_seed(3))


def masks_of(graph: easypruner.graph.ChannelGraph) -> dict[str, Tensor]:
    return {name: torch.arange(group.size) % 3 != 1 for name, group in graph.groups.items()}


LAYERS: dict[str, tuple[Any, int]] = {
    'rnn': (lambda: nn.RNN(7, 8, 2), 8),
    'rnn, relu, no bias': (lambda: nn.RNN(7, 8, nonlinearity='relu', bias=False), 8),
    'gru': (lambda: nn.GRU(7, 8, 2, batch_first=True), 8),
    'gru, both ways': (lambda: nn.GRU(7, 8, 2, bidirectional=True), 16),
    'lstm': (lambda: nn.LSTM(7, 8), 8),
    'lstm, both ways': (lambda: nn.LSTM(7, 8, 2, bidirectional=True, batch_first=True), 16),
    'lstm, projected': (lambda: nn.LSTM(7, 8, 2, proj_size=5), 5),
    'lstm, projected both ways': (lambda: nn.LSTM(7, 8, 2, proj_size=5, bidirectional=True), 10),
}


@pytest.mark.parametrize('looks', [False, True])
@pytest.mark.parametrize('name', LAYERS)
def test_hidden_units_are_removed_with_their_gates(name: str, looks: bool, tmp_path: Path) -> None:
    make, width = LAYERS[name]

    def build() -> nn.Module:
        return Sequence(make(), width, looks)

    model = randomized_network(build, steps())
    graph = easypruner.trace(model, steps())
    masks = masks_of(graph)
    # What comes in, and the hidden units, or what they are projected to.
    sizes = {group.size for group in graph.groups.values()}
    assert sizes == ({7, 5} if 'projected' in name else {7, 8})
    result = easypruner.verify(model, masks, steps())
    assert result.error < 1e-12 and not result.unchecked and result.removed_units
    record = easypruner.prune(model, masks, graph=graph)
    assert graph.cost() == easypruner.trace(model, steps()).cost()
    torch.save(model.state_dict(), tmp_path / 'pruned.pth')
    again = easypruner.load_pruned(build, tmp_path / 'pruned.pth', record).eval()
    assert torch.equal(again(steps()), model(steps()))


@pytest.mark.parametrize('name', LAYERS)
def test_a_cut_layer_is_like_one_built_so(name: str) -> None:
    make, width = LAYERS[name]
    model = randomized_network(lambda: Sequence(make(), width), steps())
    graph = easypruner.trace(model, steps())
    easypruner.prune(model, masks_of(graph), graph=graph)
    layer = model.layer
    fresh = type(layer)(
        layer.input_size, layer.hidden_size, layer.num_layers, bias=layer.bias,
        batch_first=layer.batch_first, bidirectional=layer.bidirectional,
        **({'nonlinearity': layer.nonlinearity} if isinstance(layer, nn.RNN) else {}),
        **({'proj_size': layer.proj_size} if layer.proj_size else {}),
    )  # fmt: skip
    assert (layer.input_size, layer.hidden_size) == (5, 8 if 'projected' in name else 5)
    assert repr(layer) == repr(fresh)
    fresh.load_state_dict(layer.state_dict(), strict=True)
    x = torch.randn(4, 4, layer.input_size)
    assert torch.equal(layer(x)[0], fresh(x)[0])
    assert all(a is b for a, b in zip(layer._flat_weights, layer.parameters(), strict=True))


@pytest.mark.parametrize('kind', [nn.RNNCell, nn.GRUCell, nn.LSTMCell])
def test_cells(kind: type[nn.Module]) -> None:
    model = randomized_network(lambda: Cells(kind), steps())
    graph = easypruner.trace(model, steps())
    assert sorted(group.size for group in graph.groups.values()) == [5, 8]
    assert easypruner.verify(model, masks_of(graph), steps()).error < 1e-12
    easypruner.prune(model, masks_of(graph), graph=graph)
    first, second = model.first, model.second
    assert (first.input_size, first.hidden_size) == (6, 5)
    assert (second.input_size, second.hidden_size) == (5, 3)
    assert repr(second) == repr(kind(5, 3))


def test_states_that_the_forward_makes_have_the_new_width() -> None:
    model = randomized_network(OwnStates, steps())
    graph = easypruner.trace(model, steps())
    assert {group.size for group in graph.groups.values()} == {7, 8}
    assert easypruner.verify(model, masks_of(graph), steps()).error < 1e-12
    easypruner.prune(model, masks_of(graph), graph=graph)
    assert model.hidden == model.layer.hidden_size == 5


@pytest.mark.parametrize('looks', [False, True])
@pytest.mark.parametrize('name', LAYERS)
def test_costs_are_those_of_the_flop_counter(name: str, looks: bool) -> None:
    """As one operation the counter gives recurrent layers no cost, so it counts their parts."""
    make, width = LAYERS[name]
    model = Sequence(make(), width, looks)
    graph = easypruner.trace(model, steps())
    predicted = graph.cost(masks_of(graph))
    assert graph.cost().macs == counted(model)
    easypruner.prune(model, masks_of(graph), graph=graph)
    assert predicted.macs == counted(model)
    assert predicted.params == sum(p.numel() for p in model.parameters())


def counted(model: Sequence) -> int:
    looks, model.looks = model.looks, False
    tensors = {name: t.to('meta') for name, t in model.named_parameters()}
    flat, model.layer._flat_weights = model.layer._flat_weights, [
        tensors[f'layer.{name}'] for name in model.layer._flat_weights_names
    ]  # fmt: skip
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        torch.func.functional_call(model, tensors, (steps().to('meta'),))
    model.looks, model.layer._flat_weights = looks, flat
    return counter.get_total_flops() // 2


class Packed(nn.Module):
    """Reads sequences of several lengths, packed behind a layer."""

    def __init__(self, kind: type[nn.Module], sort: bool) -> None:
        super().__init__()
        self.before, self.after = nn.Linear(6, 7), nn.Linear(16, 3)
        self.layer, self.sort = kind(7, 8, batch_first=True, bidirectional=True), sort

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(
            self.before(x), lengths.cpu(), batch_first=True, enforce_sorted=not self.sort
        )
        return self.after(nn.utils.rnn.pad_packed_sequence(self.layer(packed)[0], True)[0])


@pytest.mark.parametrize('sort', [True, False])
@pytest.mark.parametrize('kind', [nn.LSTM, nn.GRU])
def test_units_around_packed_sequences_go(kind: type[nn.Module], sort: bool) -> None:
    net = randomized_network(lambda: Packed(kind, sort))
    inputs = steps(5), torch.tensor([2, 5, 1, 3] if sort else [5, 3, 2, 1])
    graph = easypruner.trace(net, inputs)
    assert [group.size for group in graph.groups.values()] == [7, 8]
    masks = masks_of(graph)
    assert easypruner.verify(net, masks, inputs, graph=graph).passed
    easypruner.prune(net, masks, graph=graph)
    net(*inputs).sum().backward()
