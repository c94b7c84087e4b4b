"""Batch-norm scales and channel counts, compared with NumPy and with counts by hand."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import easypruner
from easypruner.errors import EasyPrunerError
from easypruner.graph import ChannelGraph
from easypruner.graph.masks import Masks
from easypruner.report.scales import LayerChannels, Scales, gather_scales, layer_channels


@pytest.fixture
def graph() -> ChannelGraph:
    """A graph of one group: the grouped convolution couples channels 0 and 3, 1 and 4, 2 and 5."""
    model = nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 6, 1),
            bn1=nn.BatchNorm2d(6),
            conv2=nn.Conv2d(6, 4, 1, groups=2),
            bn2=nn.BatchNorm2d(4),
        )
    )
    model.bn1.weight.data = torch.tensor([0.5, -1.0, 2.0, 4.0, -8.0, 16.0])
    return easypruner.trace(model, torch.zeros(1, 1, 2, 2))


MASKS = Masks({'conv1': torch.tensor([True, False, True])})


def test_magnitudes_are_split_by_unit(graph: ChannelGraph) -> None:
    scales = gather_scales(graph, MASKS)
    assert sorted(scales.kept) == [0.5, 2.0, 4.0, 16.0]
    assert sorted(scales.removed) == [1.0, 8.0]


def test_unnamed_groups_are_kept_whole(graph: ChannelGraph) -> None:
    scales = gather_scales(graph, {})
    assert scales.kept.size == 6
    assert scales.removed_stats() is None


def test_weights_can_come_from_a_state_dict(graph: ChannelGraph) -> None:
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
    graph: ChannelGraph, state_dict: dict[str, Tensor], message: str
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


def test_layers_after_the_cut_have_the_counted_channels(graph: ChannelGraph) -> None:
    (layer,) = layer_channels(graph, MASKS)
    easypruner.prune(graph.model, MASKS, graph=graph)
    assert graph.model.get_submodule(layer.name).weight.shape[0] == layer.kept


def test_layers_are_counted_by_output_channels(graph: ChannelGraph) -> None:
    assert layer_channels(graph, MASKS) == (LayerChannels('conv1', kept=4, removed=2),)
    assert layer_channels(graph, {}) == (LayerChannels('conv1', kept=6, removed=0),)
