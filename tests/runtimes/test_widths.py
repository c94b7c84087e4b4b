"""Grids of groups: from kinds of layers to numbers of units, and widths off the grid."""

from __future__ import annotations

import pytest
import torch
from easypruner_plugins.onnx_runtime import OnnxRuntime
from torch import Tensor, nn

import easypruner
from easypruner import Limits, Masks
from easypruner.errors import ConfigError
from easypruner.graph import ChannelGraph
from easypruner.runtimes.off_grid import describe_off_grid, off_grid
from easypruner.runtimes.widths import layer_grids

DOCUMENTED = {'type': 'OnnxRuntime', 'grid': 'documented'}


class Layers(nn.Module):
    """A stem, a depthwise, a grouped and a pointwise convolution, and a head of two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 3, padding=1)
        self.depthwise = nn.Conv2d(64, 64, 3, padding=1, groups=64)
        self.point = nn.Conv2d(64, 128, 1)
        self.grouped = nn.Conv2d(128, 128, 3, padding=1, groups=4)
        self.last = nn.Conv2d(128, 48, 1)
        self.hidden = nn.Linear(48, 40)
        self.head = nn.Linear(40, 5)

    def forward(self, images: Tensor) -> Tensor:
        x = self.depthwise(self.stem(images).relu()).relu()
        x = self.grouped(self.point(x).relu()).relu()
        x = self.last(x).relu().mean((2, 3))
        return self.head(self.hidden(x).relu())


@pytest.fixture
def graph() -> ChannelGraph:
    example = torch.randn(1, 3, 8, 8)
    return easypruner.trace(Layers(), example, target=DOCUMENTED, grouped='within')


class TestKinds:
    def test_every_layer_of_a_group_has_its_kind(self, graph: ChannelGraph) -> None:
        found = {
            (layer.param.partition('.')[0], layer.kind)
            for group in graph.groups.values()
            for layer in layer_grids(graph, group, lambda kind: 1)
        }
        assert found == {
            ('stem', 'first'),
            ('depthwise', 'depthwise'),
            ('point', 'dense'),
            ('grouped', 'grouped'),
            ('last', 'dense'),
            ('hidden', 'linear'),
            ('head', 'linear'),
        }

    def test_a_convolution_of_one_position_has_the_grid_of_others(self) -> None:
        """Else it leaves the layout in which a runtime has the channels of its neighbours."""
        network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 5, 1))
        graph = easypruner.trace(network, torch.randn(1, 8, 4, 4))
        (group,) = graph.groups.values()
        assert {found.kind for found in layer_grids(graph, group, lambda kind: 1)} == {'dense'}


class TestTarget:
    def test_groups_keep_to_the_strictest_grid_of_their_layers(self, graph: ChannelGraph) -> None:
        steps = {name: limits.round_to for name, limits in graph.limits.items()}
        # The channels of a group of the grouped convolution: four of them have 32 each.
        assert steps == {'stem': 16, 'point': 16, 'grouped': 16, 'last': 16, 'hidden': 1}
        assert graph.groups['point'].size == 32

    def test_grouped_convolutions_lose_whole_groups_by_default(self) -> None:
        graph = easypruner.trace(Layers(), torch.randn(1, 3, 8, 8), target=DOCUMENTED)
        # Each of the four groups has 32 channels, which are on the grid of the other layers.
        assert (graph.groups['point'].size, graph.limits['point'].round_to) == (4, 1)
        assert 'grouped' not in graph.groups

    def test_narrow_groups_go_in_pairs_that_fill_the_grid_of_their_neighbours(self) -> None:
        network = Layers()
        network.grouped = nn.Conv2d(128, 128, 3, padding=1, groups=16)
        graph = easypruner.trace(network, torch.randn(1, 3, 8, 8), target=DOCUMENTED)
        assert (graph.groups['point'].size, graph.limits['point'].round_to) == (16, 2)

    def test_a_number_of_the_user_counts_more(self) -> None:
        limits = {'stem': {'round_to': 4}, '*': {'min_units': 5}}
        example = torch.randn(1, 3, 8, 8)
        found = easypruner.trace(Layers(), example, limits=limits, target=DOCUMENTED).limits
        assert found['stem'] == Limits(round_to=4)
        assert found['last'] == Limits(min_units=5, round_to=16)

    def test_auto_without_a_target_fits_all_runtimes_and_narrow_layers(self) -> None:
        example = torch.randn(1, 3, 8, 8)
        found = easypruner.trace(Layers(), example, limits={'round_to': 'auto'}).limits
        assert {name: limits.round_to for name, limits in found.items()} == {
            'stem': 16,
            'point': 8,
            'grouped': 8,
            'last': 8,
            'hidden': 1,
        }

    def test_without_auto_and_target_widths_are_of_any_size(self) -> None:
        graph = easypruner.trace(Layers(), torch.randn(1, 3, 8, 8))
        assert graph.limits == {}

    @pytest.mark.parametrize(
        ('target', 'message'),
        [
            ('OnxRuntime', "unknown runtime 'OnxRuntime'; did you mean 'OnnxRuntime'"),
            (16, 'target=16 of trace; expected the name of a runtime'),
            ({'type': 'OnnxRuntime', 'grid': 'fast'}, "grid='fast' of OnnxRuntime"),
            ({'type': 'OnnxRuntime', 'grid': 0}, 'grid=0 of OnnxRuntime'),
        ],
    )
    def test_mistakes_are_named(self, target: object, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            easypruner.trace(Layers(), torch.randn(1, 3, 8, 8), target=target)

    def test_another_word_than_auto_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="round_to='fast' of Limits; expected a whole number"):
            Limits(round_to='fast')


class TestOffGrid:
    def masks(self, graph: ChannelGraph, **kept: int) -> Masks:
        return Masks({name: torch.arange(graph.groups[name].size) < n for name, n in kept.items()})

    def test_layers_between_two_steps_are_listed(self, graph: ChannelGraph) -> None:
        runtime = OnnxRuntime(grid='documented')
        found = off_grid(graph, self.masks(graph, stem=30, point=16, last=47, hidden=3), runtime)
        assert {(each.layer, each.channels, each.next) for each in found} == {
            ('stem', 30, 32),
            ('depthwise', 30, 32),
            ('point', 30, 32),
            ('last', 47, 48),
        }
        assert '4 layers off the grid: stem (first): 30 channels, next 32' in describe_off_grid(
            found
        )

    def test_what_keeps_its_own_width_is_not_listed(self, graph: ChannelGraph) -> None:
        found = off_grid(graph, self.masks(graph, stem=64, last=32), OnnxRuntime(grid='documented'))
        assert found == () and describe_off_grid(found) == ''
