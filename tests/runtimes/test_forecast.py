"""Forecast: the time of really pruned networks, in a runtime that takes time by a known law."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

import easypruner
from easypruner.graph import ChannelGraph
from easypruner.runtimes.forecast import Forecast, _ascending
from easypruner.runtimes.layer_times import LayerTimes
from easypruner.runtimes.layers import layer_uses
from tests.helpers.clocked import CLOCK, Clock, Clocked, network_seconds, use_clock


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Clock:
    return use_clock(monkeypatch, tmp_path)


class Everything(nn.Module):
    """A network with each kind of layer, one of them called twice."""

    def __init__(self, groups: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(64, 64, 3, padding=1, groups=64)
        self.grouped = nn.Conv2d(64, 96, 3, padding=1, groups=groups)
        self.twice = nn.Conv2d(96, 96, 1)
        self.up = nn.ConvTranspose2d(96, 48, 2, stride=2)
        self.norm = nn.BatchNorm2d(48)
        self.head = nn.Linear(48, 40)
        self.out = nn.Linear(40, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.grouped(self.depthwise(self.stem(x)).relu()).relu()
        x = self.norm(self.up(self.twice(self.twice(x).relu()).relu()))
        return self.out(self.head(x.mean((2, 3))).relu())


def whole_of(graph: ChannelGraph) -> float:
    return network_seconds(graph.model, graph.example_inputs)


def forecast_of(graph: ChannelGraph, runtime: Clocked) -> Forecast:
    return Forecast(graph, LayerTimes(runtime, torch.device('cpu')), whole_of(graph))


def random_masks(graph: ChannelGraph, seed: int, step: int) -> dict[str, Tensor]:
    """Return masks that keep a multiple of a step of each group, at least a quarter of it."""
    generator = torch.Generator().manual_seed(seed)
    masks = {}
    for name, group in graph.groups.items():
        least = max(group.size // 4, 1)
        kept = int(torch.randint(least, group.size + 1, (), generator=generator))
        kept = min(-(-kept // step) * step, group.size)
        masks[name] = torch.rand(group.size, generator=generator).argsort() < kept
    return masks


@pytest.mark.parametrize('grouped', ['within', 'whole'])
@pytest.mark.parametrize('seed', range(2))
def test_a_law_of_products_of_widths_is_met_exactly(seed: int, grouped: str) -> None:
    graph = easypruner.trace(Everything(), torch.rand(1, 3, 16, 16), grouped=grouped)
    runtime = Clocked()
    forecast = forecast_of(graph, runtime)
    masks = random_masks(graph, seed, 1)
    share = forecast.seconds(masks) / forecast.whole
    assert share == pytest.approx(runtime.share(graph, masks), rel=1e-9)
    assert forecast.seconds() == pytest.approx(whole_of(graph))


def test_the_layers_of_a_network_are_found_with_all_their_calls() -> None:
    graph = easypruner.trace(Everything(), torch.rand(1, 3, 16, 16))
    forecast = forecast_of(graph, Clocked())
    by_layer = forecast.by_layer()
    assert list(by_layer) == [
        'stem', 'depthwise', 'grouped', 'twice', 'up', 'head', 'out',
    ]  # fmt: skip
    assert [use.path for use in layer_uses(graph)].count('twice') == 2
    # 8 x 8 positions, 96 x 96 weights, two calls.
    assert by_layer['twice'] == pytest.approx(2e-9 * 64 * 96 * 96)
    assert sum(by_layer.values()) == pytest.approx(whole_of(graph))


@pytest.mark.parametrize('seed', range(3))
def test_fewer_units_are_never_slower(seed: int) -> None:
    graph = easypruner.trace(Everything(), torch.rand(1, 3, 16, 16))
    noise = torch.Generator().manual_seed(seed)
    CLOCK.load = iter(lambda: 0.5 + float(torch.rand((), generator=noise)), None)
    forecast = forecast_of(graph, Clocked())
    order = {n: torch.rand(g.size, generator=noise).argsort() for n, g in graph.groups.items()}
    before = forecast.seconds()
    for step in range(1, 12):
        masks = {n: o < max(len(o) * (12 - step) // 12, 1) for n, o in order.items()}
        now = forecast.seconds(masks)
        assert now <= before
        before = now


def test_what_a_network_takes_besides_its_layers_goes_with_its_activations() -> None:
    graph = easypruner.trace(Everything(), torch.rand(1, 3, 16, 16))
    whole = whole_of(graph)
    forecast = Forecast(graph, LayerTimes(Clocked(), torch.device('cpu')), 1.5 * whole)
    masks = random_masks(graph, 0, 1)
    layers = Clocked().share(graph, masks)
    activations = graph.cost(masks).activations / graph.cost().activations
    assert forecast.seconds(masks) == pytest.approx(whole * (layers + 0.5 * activations))


def test_layers_that_take_less_time_in_a_network_are_scaled() -> None:
    graph = easypruner.trace(Everything(), torch.rand(1, 3, 16, 16))
    forecast = Forecast(graph, LayerTimes(Clocked(), torch.device('cpu')), 0.5 * whole_of(graph))
    masks = random_masks(graph, 0, 1)
    share = forecast.seconds(masks) / forecast.whole
    assert share == pytest.approx(Clocked().share(graph, masks))


def test_a_layer_that_the_runtime_cannot_express_is_a_part_of_the_rest() -> None:
    graph = easypruner.trace(Everything(), torch.rand(1, 3, 16, 16))
    runtime = Clocked()
    runtime.refused = nn.ConvTranspose2d
    forecast = forecast_of(graph, runtime)
    assert 'up' not in forecast.by_layer()
    assert forecast.seconds() == pytest.approx(whole_of(graph))


@pytest.mark.parametrize('name', ['mobilenet_v2', 'regnet_y_400mf'])
def test_architectures(name: str) -> None:
    model = getattr(torchvision.models, name)()
    graph = easypruner.trace(model, torch.rand(1, 3, 32, 32))
    runtime = Clocked()
    forecast = forecast_of(graph, runtime)
    masks = random_masks(graph, 1, 1)
    share = forecast.seconds(masks) / forecast.whole
    # Widths below a quarter are on a line to no channels at all.
    assert share == pytest.approx(runtime.share(graph, masks), rel=0.02)


def test_tied_weights_and_other_classes() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv1d(4, 32, 3), nn.Conv1d(32, 32, 1)
            self.third = nn.Conv1d(32, 32, 1)
            self.third.weight = self.second.weight
            self.out = nn.utils.parametrizations.weight_norm(nn.Conv1d(32, 4, 1))

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.third(self.second(self.first(x)).relu()))

    graph = easypruner.trace(Tied(), torch.rand(2, 4, 20))
    runtime = Clocked()
    forecast = forecast_of(graph, runtime)
    masks = random_masks(graph, 0, 1)
    assert graph.groups
    share = forecast.seconds(masks) / forecast.whole
    assert share == pytest.approx(runtime.share(graph, masks))


def test_a_time_that_was_too_long_does_not_spread_to_wider_layers() -> None:
    right = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    assert np.array_equal(_ascending(right), right)
    wrong = right.copy()
    wrong[0, 0] = 7.0
    found = _ascending(wrong)
    assert (np.diff(found, axis=0) >= 0).all()
    assert found[2, 0] < 7.0 and np.array_equal(found[:, 1], right[:, 1])
