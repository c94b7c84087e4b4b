"""Batch-norm scales and channel counts, against numpy and against counting by hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from easypruner.errors import EasyPrunerError
from easypruner.report.scales import LayerChannels, Scales, gather_scales, layer_channels


@dataclass
class Graph:
    """A stand-in for a channel graph of conv1 -> bn1 -> conv2, one unit for two channels."""

    model: nn.Module
    operands: dict[str, str] = field(
        default_factory=lambda: {
            'conv1.weight': 'convolution.weight',
            'bn1.weight': 'batch_norm.weight',
            'conv2.weight': 'convolution.weight',
        }
    )

    @property
    def groups(self) -> dict[str, SimpleNamespace]:
        pairs = torch.tensor([[0, 3], [1, 4], [2, 5]])
        members = [
            ('conv1.weight', 0, 'out'),
            ('bn1.weight', 0, 'out'),
            ('conv2.weight', 1, 'in'),
        ]
        return {
            'conv1': SimpleNamespace(
                name='conv1',
                size=3,
                members=[
                    SimpleNamespace(
                        param=param, dim=dim, role=role, index=pairs, operand=self.operands[param]
                    )
                    for param, dim, role in members
                ],
            )
        }

    def parameter(self, name: str) -> Tensor:
        return self.model.get_parameter(name)

    def keep(self, masks: dict[str, Tensor]) -> dict[tuple[str, int], Tensor]:
        keep = masks['conv1'].repeat(2) if masks else torch.ones(6, dtype=torch.bool)
        return {(m.param, m.dim): keep for m in self.groups['conv1'].members}


@pytest.fixture
def graph() -> Graph:
    model = nn.Module()
    model.conv1, model.bn1, model.conv2 = nn.Conv2d(1, 6, 1), nn.BatchNorm2d(6), nn.Conv2d(6, 2, 1)
    model.bn1.weight.data = torch.tensor([0.5, -1.0, 2.0, 4.0, -8.0, 16.0])
    return Graph(model)


MASKS = {'conv1': torch.tensor([True, False, True])}


def test_magnitudes_are_split_by_unit(graph: Graph) -> None:
    scales = gather_scales(graph, MASKS)
    assert sorted(scales.kept) == [0.5, 2.0, 4.0, 16.0]
    assert sorted(scales.removed) == [1.0, 8.0]


def test_unnamed_groups_are_kept_whole(graph: Graph) -> None:
    scales = gather_scales(graph, {})
    assert scales.kept.size == 6
    assert scales.removed_stats() is None


def test_weights_can_come_from_a_state_dict(graph: Graph) -> None:
    scales = gather_scales(graph, MASKS, {'bn1.weight': torch.arange(6.0)})
    assert sorted(scales.removed) == [1.0, 4.0]


@pytest.mark.parametrize(
    ('state_dict', 'message'),
    [
        ({}, "no batch-norm scale 'bn1.weight'"),
        ({'bn1.weight': torch.ones(4)}, 'before the cut'),
        ({'bn1.weight': torch.tensor([1.0, float('nan')] * 3)}, 'training diverged'),
    ],
)
def test_unfit_weights_are_errors(
    graph: Graph, state_dict: dict[str, Tensor], message: str
) -> None:
    with pytest.raises(EasyPrunerError, match=message):
        gather_scales(graph, MASKS, state_dict)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50))
def test_statistics_agree_with_sorting(values: list[float]) -> None:
    stats = Scales(np.empty(0), np.array(values)).removed_stats()
    assert stats is not None
    ordered = sorted(values)
    half, odd = divmod(len(ordered), 2)
    median = ordered[half] if odd else (ordered[half - 1] + ordered[half]) / 2
    assert stats.count == len(values)
    assert stats.largest == ordered[-1]
    assert stats.median == pytest.approx(median)
    assert stats.median <= stats.p99 * (1 + 1e-12)
    assert np.mean(np.array(values) <= stats.p99 * (1 + 1e-12)) >= 0.99 - 1 / len(values)


def test_layers_are_counted_by_output_channels(graph: Graph) -> None:
    assert layer_channels(graph, MASKS) == (LayerChannels('conv1', kept=4, removed=2),)
    assert layer_channels(graph, {}) == (LayerChannels('conv1', kept=6, removed=0),)
