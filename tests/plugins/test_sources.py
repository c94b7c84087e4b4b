"""Mask sources against their formulas."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from easypruner_plugins.bn_scale import BNScale
from easypruner_plugins.l1_norm import L1Norm
from easypruner_plugins.macs import Macs
from easypruner_plugins.mask_file import MaskFile
from easypruner_plugins.random_source import Random
from easypruner_plugins.ratio import Ratio
from torch import nn

import easypruner
from easypruner import Context, Masks, MaskSource
from easypruner.errors import ConfigError, EasyPrunerError, MaskError
from tests.graph.test_prune import random_masks
from tests.networks import NETWORKS, Depthwise, Plain, Residual, example, lively

RANKED = (BNScale, L1Norm, Random)


def test_bn_scale_is_the_magnitude_of_each_coupled_scale() -> None:
    model = lively(Residual)
    with torch.no_grad():
        model.stem[1].weight.mul_(-1)
    scores = BNScale().score(easypruner.trace(model, example()), Context())
    expected = torch.stack([model.stem[1].weight.abs(), model.conv[2].weight.abs()])
    assert torch.equal(scores['stem.0'], expected)


def test_bn_scale_leaves_groups_without_a_norm_alone() -> None:
    model = lively(Depthwise)
    scores = BNScale().score(easypruner.trace(model, example()), Context())
    assert set(scores) == {'expand.0'}


def test_bn_scale_on_a_network_without_norms_says_what_to_use() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1))
    with pytest.raises(EasyPrunerError, match='L1Norm'):
        BNScale(Ratio(keep=0.5)).select(easypruner.trace(model, example()), Context())


def test_l1_norm_is_the_sum_over_each_filter() -> None:
    model = lively(Residual)
    scores = L1Norm().score(easypruner.trace(model, example()), Context())
    first, second = model.stem[0].weight, model.conv[1].weight
    expected = torch.stack([first.abs().sum((1, 2, 3)), second.abs().sum((1, 2, 3))])
    assert torch.allclose(scores['stem.0'], expected)


def test_random_depends_on_the_seed_only() -> None:
    graph = easypruner.trace(lively(Plain), example())
    one, same, other = (
        Random(Ratio(keep=0.5)).select(graph, Context(seed=seed)) for seed in (1, 1, 2)
    )
    assert one == same and one != other
    assert Random(Ratio(keep=0.5), seed=1).select(graph, Context(seed=2)) == one


def test_mask_file_returns_what_was_saved(tmp_path: Path) -> None:
    graph = easypruner.trace(lively(Plain), example())
    masks = Masks(random_masks(graph.model, 0))
    masks.save(tmp_path / 'masks.safetensors')
    assert MaskFile(str(tmp_path / 'masks.safetensors')).select(graph, Context()) == masks
    with pytest.raises(MaskError, match='which this model does not have'):
        MaskFile(str(tmp_path / 'masks.safetensors')).select(
            easypruner.trace(Residual(), example()), Context()
        )


@pytest.mark.parametrize('source', RANKED)
@pytest.mark.parametrize('build', NETWORKS)
def test_selected_masks_verify(source: type[MaskSource], build: type[nn.Module]) -> None:
    model = lively(build)
    graph = easypruner.trace(model, example())
    try:
        masks = source(Macs(keep=0.6)).select(graph, Context())
    except EasyPrunerError:
        assert source is BNScale, 'the other sources score every network'
        return
    assert graph.cost(masks).macs <= 0.6 * graph.cost().macs
    assert easypruner.verify(model, masks, example()).error < 1e-12


@pytest.mark.parametrize('source', RANKED)
def test_a_source_without_a_budget_says_so(source: type[MaskSource]) -> None:
    graph = easypruner.trace(lively(Plain), example())
    with pytest.raises(ConfigError, match='needs a budget'):
        source().select(graph, Context())


def test_an_unknown_reduction_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'mean'"):
        BNScale(reduction='maen')


def test_scales_that_are_no_numbers_stop_the_selection() -> None:
    model = lively(Plain)
    with torch.no_grad():
        model.body[0][1].weight[0] = float('nan')
    with pytest.raises(EasyPrunerError, match=r"group 'body\.0\.0'"):
        BNScale(Ratio(keep=0.5)).select(easypruner.trace(model, example()), Context())
