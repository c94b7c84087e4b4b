"""speed(): against really pruned networks in a runtime that takes time by a known law."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import easypruner
from easypruner.analysis import speed
from easypruner.errors import ConfigError
from easypruner.graph import ChannelGraph
from tests.helpers import clocked
from tests.helpers.clocked import Clock, Clocked, network_seconds, use_clock


class Wide(nn.Module):
    """A network in which MACs of some layers take more time."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 64, 3), nn.Conv2d(64, 96, 3)
        self.third, self.head = nn.Conv2d(96, 48, 1), nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.third(self.second(self.first(x).relu()).relu()).relu()
        return self.head(x.mean((2, 3)))


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Clock:
    return use_clock(monkeypatch, tmp_path)


def wide(**limits: int) -> ChannelGraph:
    return easypruner.trace(Wide().eval(), torch.rand(1, 3, 12, 12), limits=limits or None)


def test_half_of_a_group_saves_what_the_really_pruned_network_does() -> None:
    graph, runtime = wide(round_to=16), Clocked()
    whole = network_seconds(graph.model, graph.example_inputs)
    found = speed(graph, runtime)
    assert found.seconds.median == pytest.approx(whole)
    assert found.layers == pytest.approx(1)
    assert [(g.name, g.units, g.half) for g in found.groups] == [
        ('first', 64, 32), ('second', 96, 48), ('third', 48, 32),
    ]  # fmt: skip
    for group in found.groups:
        masks = {group.name: torch.arange(group.units) < group.half}
        assert group.saved == pytest.approx(whole * (1 - runtime.share(graph, masks)))
    macs = {path: cost.macs for path, cost in graph.layer_costs().items()}
    assert found.groups[1].seconds == pytest.approx(1e-9 * (macs['second'] + macs['third']))


def test_where_time_goes_with_macs_nothing_is_better_than_the_macs() -> None:
    budget = speed(wide(), Clocked(), macs=0.5).budget
    assert budget is not None
    assert budget.even == pytest.approx(0.5, abs=0.01)
    assert budget.best + 0.01 >= 0.5 and budget.best <= budget.even


@pytest.mark.parametrize('macs', [0.75, 0.5])
def test_the_best_is_near_that_of_all_choices(macs: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clocked, 'POINTWISE', 20.0)
    graph, runtime = wide(round_to=16), Clocked()
    found = speed(graph, runtime, macs).budget
    shares = []
    for kept in itertools.product((16, 32, 48, 64), range(16, 97, 16), (16, 32, 48)):
        sizes = zip(graph.groups.items(), kept, strict=True)
        masks = {name: torch.arange(group.size) < n for (name, group), n in sizes}
        if graph.cost(masks).macs >= macs * graph.cost().macs:
            shares.append(runtime.share(graph, masks))
    assert found is not None and found.best < found.even
    assert min(shares) - 1e-9 <= found.best <= min(shares) + 0.1


def test_a_network_without_groups() -> None:
    graph = easypruner.trace(nn.Sequential(nn.Conv2d(3, 4, 3)), torch.rand(1, 3, 8, 8))
    found = speed(graph, Clocked())
    assert (found.groups, found.budget) == ((), None)


def test_a_share_of_macs_that_is_none() -> None:
    with pytest.raises(ConfigError, match=r'macs=2 of speed; expected a number from 0 to 1'):
        speed(wide(), Clocked(), macs=2)
