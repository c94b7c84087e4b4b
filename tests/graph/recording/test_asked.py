"""Values that code asks for and weights decide: what trials know of a pass that got them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import easypruner
from easypruner.graph.recording.inventory import StandIns
from easypruner.graph.recording.tape import record
from easypruner.testing import random_masks, randomized_network

IMAGES = torch.rand(1, 3, 8, 8)


class Cell(nn.Module):
    """A recurrent cell with a number for its width, whose first state is as wide as its input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.gates = nn.Conv2d(2 * width, 2 * width, 1)
        self.update = nn.Conv2d(2 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros(x.shape, device=x.device)
        reset, mix = self.gates(torch.cat([x, state], 1)).sigmoid().split(self.width, dim=1)
        new = self.update(torch.cat([x, reset * state], 1)).tanh()
        return (1 - mix) * state + mix * new


class Watched(nn.Module):
    """Asks for values of its activations before cells run on a half of the channels each."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.width = way, 16
        self.first, self.last = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 4, 1)
        self.cells = nn.ModuleList(Cell(8) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.ask(self.first(x))
        for cell in self.cells:
            kept, given = x.split(self.width // 2, dim=1)
            x = torch.cat([cell(given), kept], 1)
        return self.last(x)

    def ask(self, x: Tensor) -> Tensor:
        if self.way == 'finite' and not torch.isfinite(x).all():
            raise ValueError('not finite')
        if self.way == 'largest':
            return x / x.abs().max().item()
        if self.way == 'rows':
            return x[:, :, x.mean((0, 1, 3)) > -100]
        if self.way == 'order':
            return x[:, :, (x.mean((0, 1, 3)) > -100).nonzero()[1:, 0]] if torch.equal(x, x) else x
        return x


@pytest.mark.parametrize('way', ['finite', 'largest', 'rows', 'order'])
def test_trials_know_the_shapes_of_a_pass_that_asks_for_values(way: str) -> None:
    model = randomized_network(lambda: Watched(way))
    assert record(StandIns(model), IMAGES).backend.replays
    graph = easypruner.trace(model, IMAGES)
    assert graph.groups['first'].size == 8
    assert not any('does not follow' in entry.reason for entry in graph.frozen)
    masks = random_masks(graph, 0.5, 0)
    assert easypruner.verify(model, masks, IMAGES, graph=graph).error < 1e-12
    expected = model(IMAGES).shape
    easypruner.prune(model, masks, graph=graph)
    assert model(IMAGES).shape == expected


class Listed(nn.Module):
    """Takes values out of torch, for which a tensor on the meta device has none."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.last(y * len(y.mean((0, 2, 3)).sum().reshape(1).numpy()))


def test_a_pass_that_runs_only_on_real_tensors_is_recorded_on_these() -> None:
    model = randomized_network(Listed)
    assert record(StandIns(model), IMAGES).backend.has_values
    graph = easypruner.trace(model, IMAGES)
    assert easypruner.verify(model, random_masks(graph, 0.5, 0), IMAGES).error < 1e-12


class Counted(Watched):
    """Asks for one value in evaluation, and for others in training, where a head is added."""

    def __init__(self) -> None:
        super().__init__('finite')
        self.extra = nn.Conv2d(16, 2, 1)

    def ask(self, x: Tensor) -> Tensor:
        x = super().ask(x)
        if self.training and x.max() < 1e9:
            return x + self.extra(x)[:, :, x.mean((0, 1, 3)) > -1e9].mean()
        return x


def test_a_training_pass_asks_for_its_own_values() -> None:
    model = randomized_network(Counted)
    graph = easypruner.trace(model, IMAGES)
    assert graph.groups['first'].size == 8
    read = {member.param for member in graph.groups['first'].members if member.role == 'in'}
    assert {'extra.weight', 'last.weight'} <= read
