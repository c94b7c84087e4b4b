"""Values on the meta device: known where inputs and constants decide, guessed in large networks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

import easypruner
from easypruner.graph.recording.inventory import StandIns
from easypruner.graph.recording.tape import Tape, record
from easypruner.testing import random_masks, randomized_network

IMAGES = torch.rand(2, 3, 8, 8)


class Net(nn.Module):
    """Convolutions around a part that asks for values."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)
        self.length, self.scale = torch.tensor(3), nn.Parameter(torch.tensor(2.0))
        self.register_buffer('table', torch.tensor([1, 0, 5]))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.last(self.part(self.first(x).relu(), mask))

    def part(self, y: Tensor, mask: Tensor | None) -> Tensor:
        raise NotImplementedError


class Constants(Net):
    def part(self, y: Tensor, mask: Tensor | None) -> Tensor:
        seen = torch.ones(y.shape[-1], dtype=torch.bool, device=y.device)
        seen[0] = False
        assert not seen.all() and int(seen.sum()) == 5 and int(self.length) == 3
        return y[..., seen]


class OfModules(Net):
    def part(self, y: Tensor, mask: Tensor | None) -> Tensor:
        assert self.table.max().item() == 5 and len(torch.unique(self.table)) == 3
        return y * 2 if self.scale.item() > 1 else y[..., :2]


class Masked(Net):
    def part(self, y: Tensor, mask: Tensor | None) -> Tensor:
        assert mask is not None
        if mask.any():
            y = y[:, :, : mask.sum().item()]
        return y[:, :, mask.nonzero()[0, 0] :]


class Lists(Net):
    def part(self, y: Tensor, mask: Tensor | None) -> Tensor:
        assert mask is not None and 5 in self.table[[-1, 0]] and 0 not in self.table[[2, 0]]
        seen = mask[:, [0, 3, 1]]
        assert seen.tolist() == [[False, True, True]]
        return y[..., [4, 0]][:, :, [True, False, True, *[False] * 3]]


CASES: dict[str, tuple[type[Net], tuple[Tensor, ...]]] = {
    'constants': (Constants, (IMAGES,)),
    'numbers and tables of modules': (OfModules, (IMAGES,)),
    'inputs': (Masked, (IMAGES, torch.tensor([False, True, True, True]))),
    'lists of indices': (Lists, (IMAGES, torch.tensor([[False, True, True, True]]))),
}


def recorded(model: nn.Module, inputs: Any) -> Tape:
    return record(StandIns(model), inputs)


@pytest.mark.parametrize('case', CASES)
def test_values_that_no_weight_decides_are_known_without_a_real_run(case: str) -> None:
    build, inputs = CASES[case]
    model = randomized_network(build)
    tape = recorded(model, inputs)
    assert not (tape.backend.has_values or tape.backend.guesses or tape.backend.replays)
    with torch.no_grad():
        assert tape.outputs[0][1].shape == model(*inputs).shape
    graph = easypruner.trace(model, inputs)
    assert graph.groups['first'].size == 8 and graph.notes == ()
    assert easypruner.verify(model, random_masks(graph, 0.5, 0), inputs).error < 1e-12


class WrittenOver(Net):
    def part(self, y: Tensor, mask: Tensor | None) -> Tensor:
        flags = torch.zeros(4, dtype=torch.bool, device=y.device)
        flags[1:] = y.mean() > -1e9
        return y * 3 if flags.view(2, 2).any() else y


def test_values_into_which_weights_write_are_not_known() -> None:
    model = randomized_network(WrittenOver)
    assert recorded(model, IMAGES).backend.replays
    with torch.no_grad():
        assert torch.equal(model(IMAGES), model.last(model.first(IMAGES).relu() * 3))


def test_a_view_reads_what_is_written_later() -> None:
    class Views(Net):
        def part(self, y: Tensor, mask: Tensor | None) -> Tensor:
            flags = torch.zeros(4, dtype=torch.int64, device=y.device)
            part = flags[1:3]
            flags.fill_(2)
            part.add_(1)
            assert flags.tolist() == [2, 3, 3, 2]
            return y

    backend = recorded(randomized_network(Views), IMAGES).backend
    assert not (backend.has_values or backend.replays)


def detector() -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.detection.ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=3
    )


def test_a_large_network_is_traced_without_a_real_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which boxes it finds depends on its weights. All that the code allows are counted."""
    monkeypatch.setattr('easypruner.graph.recording.tape._MANY_MACS', 2**28)
    model, inputs = detector(), ([torch.rand(3, 64, 64)],)
    tape = recorded(model.eval(), inputs)
    assert tape.backend.guesses and not tape.backend.has_values
    graph = easypruner.trace(model, inputs)
    assert any('as many entries' in note for note in graph.notes)
    assert 'backbone.features.0.0.0' in graph.groups
    easypruner.prune(model, random_masks(graph, 0.5, 0), graph=graph)
    with torch.no_grad():
        assert set(model(*inputs)[0]) == {'boxes', 'scores', 'labels'}


class Conditional(nn.Module):
    """A large network, a part of which runs only under a condition."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 96, 3), nn.Conv2d(96, 96, 3)
        self.rare = nn.Conv2d(96, 96, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.last(self.rare(y) if (y == y).all() else y)


def test_code_under_a_condition_is_not_skipped() -> None:
    model = randomized_network(Conditional)
    graph = easypruner.trace(model, torch.rand(1, 3, 90, 90))
    assert {m.module for g in graph.groups.values() for m in g.members} == {'first', 'rare', 'last'}
