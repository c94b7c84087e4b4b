"""HRank against the mean rank of feature maps, taken one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from easypruner_plugins.hrank import HRank
from easypruner_plugins.macs import Macs
from torch import Tensor, nn

import easypruner
from easypruner.errors import ConfigError
from easypruner.testing import example_inputs, randomized_network, tiny_batches, tiny_context
from easypruner.testing.networks import Flattened, Plain, Residual
from tests.helpers.edge_cases import check_edge_cases
from tests.helpers.networks import NETWORKS, Volume, traced_network


def mean_rank(maps: list[Tensor], channel: int) -> float:
    ranks = [
        int(np.linalg.matrix_rank(sample[channel].detach().numpy()))
        for batch in maps
        for sample in batch
    ]
    return sum(ranks) / len(ranks)


def low_rank() -> nn.Module:
    """Return a network whose maps are of rank 0 to 8."""
    model = randomized_network(Plain)
    with torch.no_grad():
        model.body[0][1].weight[0], model.body[0][1].bias[0] = 0, -1
        model.body[0][1].weight[1], model.body[0][1].bias[1] = 0, 1
        model.body[0][1].bias[2] = -1
    return model


@torch.no_grad()
def test_the_rank_of_each_map_that_a_convolution_reads() -> None:
    model = low_rank()
    scores = HRank(batches=2).score(easypruner.trace(model, example_inputs()), tiny_context())
    maps = [model.body[0](images) for images, _ in tiny_batches(2)]
    expected = [mean_rank(maps, channel) for channel in range(8)]
    assert expected[0] == 0 and expected[1] == 1 and 1 < expected[2] < max(expected)
    assert scores['body.0.0'].shape == (1, 8)
    torch.testing.assert_close(scores['body.0.0'][0].tolist(), expected)


@torch.no_grad()
@pytest.mark.parametrize('build', [Plain, Flattened])
def test_maps_that_are_pooled_or_flattened_are_seen_behind_the_norm(
    build: type[nn.Module],
) -> None:
    model = randomized_network(build)
    scores = HRank().score(easypruner.trace(model, example_inputs()), tiny_context())
    name, part = ('body.1.0', model.body[:1]) if build is Plain else ('body.0.0', None)
    layers = model.body[1][:2] if build is Plain else model.body[0][:2]
    inputs = [images if part is None else part(images) for images, _ in tiny_batches(3)]
    maps = [layers(x) for x in inputs]
    expected = [mean_rank(maps, channel) for channel in range(scores[name].shape[1])]
    assert max(expected) > 1
    torch.testing.assert_close(scores[name][0].tolist(), expected)


def test_readers_of_numbers_do_not_count_beside_readers_of_maps() -> None:
    scores = HRank().score(traced_network(Residual), tiny_context())
    assert scores['stem.0'].shape == (1, 8)


@torch.no_grad()
def test_of_volumes_each_slice_is_a_map() -> None:
    model = randomized_network(Volume)
    scores = HRank(batches=1).score(easypruner.trace(model, example_inputs()), tiny_context())[
        'first'
    ]
    x = tiny_batches(1)[0][0][:, :, None].expand(-1, -1, 4, -1, -1)
    x = nn.functional.pad(model.slope(model.first(x)), (1, 1, 1, 1))
    x = nn.functional.interpolate(x, scale_factor=2)
    for channel in range(6):
        slices = [x[sample, channel, depth] for sample in range(8) for depth in range(x.shape[2])]
        ranks = [int(np.linalg.matrix_rank(plane.numpy())) for plane in slices]
        assert float(scores[0, channel]) == pytest.approx(sum(ranks) / len(ranks))


class Thin(nn.Module):
    """A volume of one slice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv3d(3, 6, (1, 3, 3)), nn.Conv3d(6, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.read(x)).mean((2, 3, 4))

    def read(self, x: Tensor) -> Tensor:
        return torch.relu(self.first(x[:, :, None]) - 1)


@torch.no_grad()
def test_a_volume_of_one_slice_has_maps() -> None:
    torch.manual_seed(0)
    model = Thin().eval()
    scores = HRank(batches=1).score(easypruner.trace(model, example_inputs()), tiny_context())[
        'first'
    ]
    maps = [model.read(tiny_batches(1)[0][0])[:, :, 0]]
    expected = [mean_rank(maps, channel) for channel in range(6)]
    assert 0 < max(expected) < 6
    torch.testing.assert_close(scores[0].tolist(), expected)


def test_numbers_have_rank_one_or_none() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.ReLU(), nn.Linear(6, 5)).eval()
    with torch.no_grad():
        model[1].weight[2], model[1].bias[2] = 0, -1
    scores = HRank().score(easypruner.trace(model, example_inputs()), tiny_context())['1'][0]
    assert scores[2] == 0 and bool((scores[[0, 1, 3, 4, 5]] > 0).all()) and scores.max() <= 1


@pytest.mark.parametrize('build', NETWORKS)
def test_chosen_masks_verify(build: type[nn.Module]) -> None:
    model = randomized_network(build)
    graph = easypruner.trace(model, example_inputs())
    masks = HRank(Macs(keep=0.6), batches=1).select(graph, tiny_context())
    assert set(masks) == set(graph.groups)
    assert easypruner.verify(model, masks, example_inputs()).error < 1e-12


def test_edge_cases() -> None:
    check_edge_cases(lambda budget: HRank(budget, batches=1))


def test_invalid_arguments_are_refused() -> None:
    with pytest.raises(ConfigError, match='batches=0 of HRank'):
        HRank(batches=0)
