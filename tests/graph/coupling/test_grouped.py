"""Grouped convolutions that lose whole groups: the cut, its record, and where it is impossible."""

from __future__ import annotations

import copy
import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from mmengine.config import Config
from rich.console import Console
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet

import easypruner
from easypruner.analysis import analyze
from easypruner.analysis.table import print_analysis
from easypruner.cli.main import main
from easypruner.engine.runner import graph_options
from easypruner.errors import ConfigError
from easypruner.graph import ChannelGraph
from easypruner.graph.verify import compute_outputs
from easypruner.testing import example_inputs, random_masks, randomized_network
from easypruner.testing.networks import Depthwise, Grouped


def traced(model: nn.Module, size: int = 8, **options: Any) -> ChannelGraph:
    return easypruner.trace(model, torch.randn(2, 3, size, size), grouped='whole', **options)


def test_whole_groups_go_and_their_width_stays(tmp_path: Path) -> None:
    model = randomized_network(Grouped)
    graph = easypruner.trace(model, example_inputs(), grouped='whole')
    # The three groups of both convolutions are tied: the outputs of one are the inputs of the next.
    assert [(name, group.size) for name, group in graph.groups.items()] == [('stem.0', 3)]
    assert graph.notes == ()
    masks = {'stem.0': torch.tensor([True, False, True])}
    assert easypruner.verify(model, masks, example_inputs(), graph=graph).error < 1e-12
    expected = graph.cost(masks)
    full = copy.deepcopy(model)
    record = easypruner.prune(model, masks, graph=graph)
    layers = model.stem[0], model.grouped[0], model.up
    assert [layer.groups for layer in layers] == [1, 2, 2]
    assert [tuple(layer.weight.shape[:2]) for layer in layers] == [(8, 3), (12, 4), (12, 4)]
    assert (model.up.in_channels, model.up.out_channels) == (12, 8)
    assert torch.equal(model.grouped[0].weight[6:], full.grouped[0].weight[12:])
    assert graph.cost() == expected == easypruner.trace(model, example_inputs()).cost()
    record.save(tmp_path / 'architecture.json')
    torch.save(model.state_dict(), tmp_path / 'pruned.pth')
    again = easypruner.load_pruned(
        Grouped, tmp_path / 'pruned.pth', tmp_path / 'architecture.json'
    ).eval()
    for one, other in zip(
        compute_outputs(model, example_inputs()), compute_outputs(again, example_inputs()),
        strict=True,
    ):  # fmt: skip
        assert torch.equal(one, other)


def test_the_default_keeps_the_number_of_groups() -> None:
    model = randomized_network(Grouped)
    graph = easypruner.trace(model, example_inputs())
    assert {n: g.size for n, g in graph.groups.items()} == {
        'stem.0': 4, 'grouped.0': 6, 'up': 4,
    }  # fmt: skip
    easypruner.prune(model, {'up': torch.arange(4) < 1}, graph=graph)
    assert model.up.groups == 3 and graph.notes == ()


def test_depthwise_convolutions_have_no_choice() -> None:
    model = randomized_network(Depthwise)
    one, other = (
        easypruner.trace(model, example_inputs(), grouped=grouped)  # type: ignore[arg-type]
        for grouped in ('within', 'whole')
    )
    assert {n: g.size for n, g in one.groups.items()} == {
        n: g.size for n, g in other.groups.items()
    }
    assert other.notes == ()


NETWORKS = {
    'resnext': lambda: ResNet(Bottleneck, [1, 1, 1, 1], 10, groups=8, width_per_group=4),
    'regnet_y_400mf': lambda: torchvision.models.regnet_y_400mf(num_classes=10),
}


@pytest.mark.parametrize('name', NETWORKS)
def test_every_grouped_convolution_of_a_network_loses_groups(name: str) -> None:
    model = randomized_network(NETWORKS[name])
    inputs = torch.randn(1, 3, 32, 32)
    graph = easypruner.trace(model, inputs, grouped='whole')
    before = {path: part.groups for path, part in grouped_layers(model).items()}
    width = {path: part.in_channels // part.groups for path, part in grouped_layers(model).items()}
    masks = random_masks(graph, 0.5, seed=0)
    assert easypruner.verify(model, masks, inputs, graph=graph).error < 1e-12
    expected = graph.cost(masks)
    easypruner.prune(model, masks, graph=graph)
    assert graph.notes == () and len(before) > 3
    for path, groups in before.items():
        layer = model.get_submodule(path)
        kept = next(masks[g.name] for g in graph.groups.values() if path in layers_of(g))
        assert layer.groups == int(kept.sum()) < groups
        assert layer.in_channels == layer.groups * width[path] == layer.out_channels
    assert easypruner.trace(model, inputs, grouped='whole').cost() == expected


def grouped_layers(model: nn.Module) -> dict[str, nn.Conv2d]:
    convolutions = {p: m for p, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    return {path: layer for path, layer in convolutions.items() if layer.groups > 1}


def layers_of(group: easypruner.ChannelGroup) -> set[str]:
    return {member.module for member in group.members}


class Head(nn.Sequential):
    """Layers between a stem of 24 channels and a classifier."""

    def __init__(self, *layers: nn.Module, width: int = 24) -> None:
        super().__init__(nn.Conv2d(3, 24, 3), *layers, nn.Conv2d(width, 5, 1))


class FixedGroups(nn.Module):
    """A convolution whose number of groups is written in the code."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(24, 6, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x, self.weight, groups=4)


CONFLICTS = {
    # After the shuffle, each group of the second convolution reads all groups of the first.
    'shuffle': (
        Head(nn.Conv2d(24, 24, 1, groups=4), nn.ChannelShuffle(4), nn.Conv2d(24, 24, 1, groups=4)),
        ['1', '3'],
        'shuffled',
    ),
    'norm over the same positions': (
        Head(nn.Conv2d(24, 24, 1, groups=4), nn.GroupNorm(4, 24)), ['1'], 'go all together',
    ),
    'output': (
        nn.Sequential(nn.Conv2d(3, 24, 3), nn.Conv2d(24, 8, 1, groups=4)), ['1'], 'an output',
    ),
    'number in code': (Head(FixedGroups()), ['1'], 'does not follow a cut'),
}  # fmt: skip


@pytest.mark.parametrize('case', CONFLICTS)
def test_channels_within_groups_go_where_whole_groups_cannot(case: str) -> None:
    model, layers, reason = copy.deepcopy(CONFLICTS[case])
    model = randomized_network(lambda: model)
    graph = traced(model)
    assert [note.partition(' ')[0] for note in graph.notes] == layers
    assert all(reason in note for note in graph.notes)
    within = easypruner.trace(model, torch.randn(2, 3, 8, 8))
    sizes = [{n: g.size for n, g in found.groups.items()} for found in (graph, within)]
    assert sizes[0] == sizes[1] and sizes[0]


def test_other_convolutions_still_lose_whole_groups() -> None:
    """Groups of 8 and of 4 channels end together at every eighth; a shuffle is elsewhere."""
    model = randomized_network(
        lambda: nn.Sequential(
            *Head(nn.Conv2d(24, 24, 3, groups=3), nn.Conv2d(24, 24, 1, groups=6), width=24),
            nn.Conv2d(5, 12, 1),
            nn.Conv2d(12, 12, 1, groups=2),
            nn.ChannelShuffle(2),
            nn.Conv2d(12, 12, 1, groups=2),
            nn.Conv2d(12, 2, 1),
        )
    )
    graph = traced(model)
    assert {name: group.size for name, group in graph.groups.items()}['0'] == 3
    assert [note.partition(' ')[0] for note in graph.notes] == ['5', '7']
    masks = {'0': torch.tensor([True, False, True])}
    assert easypruner.verify(model, masks, torch.randn(2, 3, 8, 8), graph=graph).error < 1e-12
    easypruner.prune(model, masks, graph=graph)
    assert (model[1].groups, model[2].groups, model[5].groups) == (2, 4, 2)


def test_limits_count_groups() -> None:
    graph = traced(randomized_network(Grouped), limits=dict(min_units=2))
    assert graph.limits['stem.0'].widths(3) == (2, 3)


def test_an_unknown_way_to_prune_grouped_convolutions_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'hole' of trace is not known; did you mean 'whole'"):
        easypruner.trace(Grouped(), example_inputs(), grouped='hole')  # type: ignore[arg-type]


def test_slim_removes_whole_groups_or_says_why_not() -> None:
    model = randomized_network(Grouped)
    slimmed = easypruner.slim(model, example_inputs(), macs=0.7, grouped='whole')
    assert slimmed.model.up.groups == 2 and 'no whole group' not in str(slimmed)
    model = randomized_network(lambda: copy.deepcopy(CONFLICTS['number in code'][0]))
    slimmed = easypruner.slim(model, torch.randn(2, 3, 8, 8), macs=0.5, grouped='whole')
    assert '1 loses channels within groups, because no whole group can go' in str(slimmed)


def test_analyze_lists_groups_as_units(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ['analyze', 'regnet_y_400mf', '--input-shape', '1,3,32,32', '--grouped', 'whole']
    assert main([*arguments, '--json']) == 0
    found = json.loads(capsys.readouterr().out)
    units = {path: group['units'] for group in found['groups'] for path in group['layers']}
    layers = grouped_layers(torchvision.models.regnet_y_400mf())
    assert layers and {path: units[path] for path in layers} == {
        path: layer.groups for path, layer in layers.items()
    }
    assert found['notes'] == []


def test_the_tables_of_analyze_say_what_was_not_possible() -> None:
    graph = traced(randomized_network(lambda: copy.deepcopy(CONFLICTS['shuffle'][0])))
    console = Console(file=StringIO(), width=80)
    print_analysis(console, 'shuffled', analyze(graph))
    assert all(note in console.file.getvalue() for note in graph.notes)  # type: ignore[attr-defined]


def test_a_config_has_the_option() -> None:
    assert graph_options(Config(dict(graph=dict(grouped='whole')))) == {'grouped': 'whole'}
    with pytest.raises(ConfigError, match=r"did you mean 'grouped'"):
        graph_options(Config(dict(graph=dict(group='whole'))))
