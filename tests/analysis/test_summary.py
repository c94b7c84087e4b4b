"""The summary: layers, parameters and frozen dimensions are those that a cut finds."""

from __future__ import annotations

from io import StringIO

import pytest
import torch
from rich.console import Console
from torch import nn

import easypruner
from easypruner.analysis import analyze
from easypruner.analysis.table import print_analysis
from easypruner.testing import example_inputs, randomized_network
from easypruner.testing.networks import Plain
from tests.helpers.networks import NETWORKS, Normed, Shared, traced_network


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def changed_by(build: type[nn.Module], *groups: str) -> set[str]:
    """Return the parameters and buffers that change if a unit of each group is removed."""
    model = randomized_network(build)
    graph = easypruner.trace(model, example_inputs())
    before = shapes(model)
    masks = {name: torch.arange(graph.groups[name].size) > 0 for name in groups}
    easypruner.prune(model, masks, graph=graph)
    return {name for name, shape in shapes(model).items() if shape != before[name]}


class TestSummary:
    @pytest.mark.parametrize('build', [n for n in NETWORKS if n is not Shared])
    def test_layers_and_params_are_those_that_a_cut_changes(self, build: type[nn.Module]) -> None:
        graph = traced_network(build)
        found = analyze(graph)
        for group in found.groups:
            owners = {name.rpartition('.')[0] for name in changed_by(build, group.name)}
            assert set(group.layers) == owners
        changed = changed_by(build, *graph.groups)
        params = dict(graph.model.named_parameters())
        assert found.prunable_params == sum(p.numel() for n, p in params.items() if n in changed)

    @pytest.mark.parametrize('build', NETWORKS)
    def test_every_frozen_dimension_is_in_one_row(self, build: type[nn.Module]) -> None:
        graph = traced_network(build)
        rows = analyze(graph).frozen
        assert sum(row.dims for row in rows) == len(graph.frozen)
        assert sum(row.channels for row in rows) == sum(f.channels for f in graph.frozen)
        assert len({row.reason for row in rows}) == len(rows)
        for row in rows:
            reasons = [f.reason for f in graph.frozen if f.param.startswith(row.example)]
            assert any(reason.startswith(row.reason) for reason in reasons)

    def test_a_reason_that_occurs_often_is_one_row(self) -> None:
        rows = {row.reason: row for row in analyze(traced_network(Plain)).frozen}
        kernels = rows['the extent of a convolution kernel']
        assert (kernels.dims, kernels.channels, kernels.example) == (4, 4 * 3, 'body.0.0')

    def test_operations_that_mix_channels_are_reported(self) -> None:
        text = StringIO()
        print_analysis(Console(file=text, width=200), 'normed', analyze(traced_network(Normed)))
        header, _, row = text.getvalue().partition('Groups')[2].splitlines()[2:5]
        assert header.split()[:4] == ['group', 'mixed', 'by', 'units']
        assert row.split()[:3] == ['first', 'native_layer_norm', '8']
