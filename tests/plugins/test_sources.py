"""Mask sources against their formulas."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from easypruner_plugins.bn_scale import BNScale
from easypruner_plugins.fisher import Fisher
from easypruner_plugins.fpgm import FPGM
from easypruner_plugins.group import Group
from easypruner_plugins.hessian import Hessian
from easypruner_plugins.lamp import Lamp
from easypruner_plugins.lp_norm import L1Norm, L2Norm
from easypruner_plugins.macs import Macs
from easypruner_plugins.mask_file import MaskFile
from easypruner_plugins.random_source import Random
from easypruner_plugins.ratio import Ratio
from easypruner_plugins.synflow import Synflow
from easypruner_plugins.taylor import Taylor
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import easypruner
from easypruner import Context, MaskSource
from easypruner.errors import BudgetError, ConfigError, EasyPrunerError, MaskError
from easypruner.testing import example_inputs, random_masks, randomized_network
from easypruner.testing.networks import Dense, Depthwise, Plain, Residual
from tests.helpers.networks import NETWORKS, traced_network
from tests.helpers.scoring import (
    assert_left_alone,
    cross_entropy,
    equal_units_graph,
    labelled_batches,
    labelled_context,
    signed_graph,
    single_unit_graph,
    state_of,
)

Build = Callable[..., MaskSource]


FROM_GRADIENTS: dict[str, Build] = {
    'Taylor gate': Taylor,
    'Taylor weight': functools.partial(Taylor, form='weight'),
    'Taylor group': functools.partial(Taylor, form='weight', over='group'),
    'Fisher': Fisher,
    'Fisher gate': functools.partial(Fisher, form='gate', per='batch'),
    'Hessian': functools.partial(Hessian, samples=1),
}
VARIANTS: dict[str, Build] = {
    'BNScale': BNScale,
    'Random': Random,
    'FPGM': FPGM,
    'Group': Group,
    'L1Norm': L1Norm,
    'L2Norm': L2Norm,
    'L1Norm group': functools.partial(L1Norm, over='group'),
    'Lamp': Lamp,
    'Lamp group': functools.partial(Lamp, over='group'),
    'Synflow': Synflow,
    'Synflow group': functools.partial(Synflow, over='group'),
    **FROM_GRADIENTS,
}
VERIFIED = ('BNScale', 'L1Norm', 'Random')
"""Sources whose masks are tried on the networks: how units were scored does not matter there."""
FROM_WEIGHTS = [name for name in VARIANTS if name != 'Random']


def test_bn_scale_is_the_magnitude_of_each_coupled_scale() -> None:
    model = randomized_network(Residual)
    with torch.no_grad():
        model.stem[1].weight.mul_(-1)
    scores = BNScale().score(easypruner.trace(model, example_inputs()), Context())
    expected = torch.stack([model.stem[1].weight.abs(), model.branch[2].weight.abs()])
    assert torch.equal(scores['stem.0'], expected)


def test_bn_scale_does_not_score_groups_without_a_norm() -> None:
    model = randomized_network(Depthwise)
    scores = BNScale().score(easypruner.trace(model, example_inputs()), Context())
    assert set(scores) == {'expand.0'}


def test_bn_scale_on_a_network_without_norms_suggests_another_source() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1))
    with pytest.raises(EasyPrunerError, match='L1Norm'):
        BNScale(Ratio(keep=0.5)).select(easypruner.trace(model, example_inputs()), Context())


def test_l1_norm_is_the_sum_over_each_filter() -> None:
    model = randomized_network(Residual)
    scores = L1Norm().score(easypruner.trace(model, example_inputs()), Context())
    first, second = model.stem[0].weight, model.branch[1].weight
    expected = torch.stack([first.abs().sum((1, 2, 3)), second.abs().sum((1, 2, 3))])
    assert torch.allclose(scores['stem.0'], expected)


def test_random_depends_on_the_seed_only() -> None:
    graph = traced_network(Plain)
    one, same, other = (
        Random(Ratio(keep=0.5)).select(graph, Context(seed=seed)) for seed in (1, 1, 2)
    )
    assert one == same and one != other
    assert Random(Ratio(keep=0.5), seed=1).select(graph, Context(seed=2)) == one


def test_mask_file_returns_what_was_saved(tmp_path: Path) -> None:
    graph = traced_network(Plain)
    masks = random_masks(graph)
    masks.save(tmp_path / 'masks.safetensors')
    assert MaskFile(str(tmp_path / 'masks.safetensors')).select(graph, Context()) == masks
    with pytest.raises(MaskError, match='which this model does not have'):
        MaskFile(str(tmp_path / 'masks.safetensors')).select(
            easypruner.trace(Residual(), example_inputs()), Context()
        )


@pytest.mark.parametrize('name', VARIANTS)
@pytest.mark.parametrize('build', NETWORKS)
def test_selected_masks_meet_the_budget_and_verify(name: str, build: type[nn.Module]) -> None:
    graph = signed_graph(build)
    try:
        masks = VARIANTS[name](Macs(keep=0.6)).select(graph, labelled_context(1))
    except EasyPrunerError:
        assert name == 'BNScale', 'the other sources score every network'
        return
    assert graph.cost(masks).macs <= 0.6 * graph.cost().macs
    if name in VERIFIED:
        assert easypruner.verify(graph.model, masks, example_inputs()).error < 1e-12


@pytest.mark.parametrize('name', VARIANTS)
def test_scores_come_on_the_cpu_in_the_shape_of_the_groups(name: str) -> None:
    graph = signed_graph(Depthwise)
    scores = VARIANTS[name]().ranking_scores(graph, labelled_context(1))
    assert name == 'BNScale' or set(scores) == set(graph.groups)
    for group, score in scores.items():
        assert score.shape == (graph.groups[group].size,)
        assert score.device.type == 'cpu' and not score.requires_grad
        assert bool(torch.isfinite(score).all())


@pytest.mark.parametrize('name', VARIANTS)
def test_a_source_without_a_budget_reports_it(name: str) -> None:
    with pytest.raises(ConfigError, match='needs a budget'):
        VARIANTS[name]().select(signed_graph(Plain), labelled_context(1))


@pytest.mark.parametrize('name', VARIANTS)
def test_a_budget_of_everything_and_of_nothing(name: str) -> None:
    graph = signed_graph(Residual)
    for budget in (Ratio, Macs):
        whole = VARIANTS[name](budget(keep=1)).select(graph, labelled_context(1))
        assert all(bool(mask.all()) for mask in whole.values())
        with pytest.raises(BudgetError, match='the lowest possible'):
            VARIANTS[name](budget(keep=0)).select(graph, labelled_context(1))


@pytest.mark.parametrize('name', VARIANTS)
def test_where_all_units_are_equal_the_budget_is_met(name: str) -> None:
    graph = equal_units_graph(Dense)
    source = VARIANTS[name](Ratio(keep=0.5))
    if name not in ('Random', 'Hessian') and not name.startswith('Lamp'):
        for score in source.ranking_scores(graph, labelled_context(1)).values():
            torch.testing.assert_close(score, score[:1].expand_as(score), rtol=1e-6, atol=1e-30)
    masks = source.select(graph, labelled_context(1))
    assert sum(masks.kept(group) for group in masks) == round(0.5 * 15)


@pytest.mark.parametrize('name', VARIANTS)
def test_a_group_of_one_unit_stays(name: str) -> None:
    graph = single_unit_graph(Residual)
    group = next(iter(graph.groups))
    masks = VARIANTS[name](Ratio(keep=0.5)).select(graph, labelled_context(1))
    assert masks[group].tolist() == [True]
    assert sum(masks.kept(group) for group in masks) == round(0.5 * 7)


@pytest.mark.parametrize('normalization', ['none', 'mean', 'max', 'sum', 'gaussian', 'lamp'])
@pytest.mark.parametrize('name', [name for name in VARIANTS if name != 'Hessian'])
def test_every_normalization_works_with_every_source(name: str, normalization: str) -> None:
    graph = signed_graph(Residual)
    source = VARIANTS[name](Macs(keep=0.6))
    source.normalization = normalization
    assert graph.cost(source.select(graph, labelled_context(1))).macs <= 0.6 * graph.cost().macs


@pytest.mark.parametrize('name', FROM_WEIGHTS)
def test_nan_weights_are_reported_with_their_group(name: str) -> None:
    graph = signed_graph(Residual)
    with torch.no_grad():
        graph.model.branch[0][0].weight[2] = float('nan')
        graph.model.branch[0][1].weight[2] = float('nan')
    # The weights that read a group count, and this layer reads the stem's channels.
    named = r'stem\.0' if name in ('Group', 'L1Norm group', 'Lamp group') else r'branch\.0\.0'
    with pytest.raises(EasyPrunerError, match=f"group '{named}' has .* NaN"):
        VARIANTS[name](Ratio(keep=0.5)).select(graph, labelled_context(1))


@pytest.mark.parametrize('name', VARIANTS)
def test_the_model_stays_unchanged(name: str) -> None:
    graph = signed_graph(Residual)
    model = graph.model.train()
    model.branch.eval()
    model.head.weight.requires_grad = False
    model.head.bias.grad = torch.ones(5).double()
    before = state_of(model)
    VARIANTS[name](Ratio(keep=0.5)).select(graph, labelled_context())
    assert_left_alone(model, before)


@pytest.mark.parametrize('name', FROM_GRADIENTS)
def test_a_failure_leaves_the_model_unchanged(name: str) -> None:
    graph = signed_graph(Residual)
    model = graph.model.train()
    before = state_of(model)

    def failing(model: nn.Module, batch: object) -> Tensor:
        model(example_inputs().double())
        raise RuntimeError('no loss today')

    with pytest.raises(RuntimeError, match='no loss today'):
        VARIANTS[name]().score(graph, Context(batches=labelled_batches, loss=failing))
    assert_left_alone(model, before)


@pytest.mark.parametrize('name', VARIANTS)
def test_modes_and_requires_grad_do_not_matter(name: str) -> None:
    graph, context = signed_graph(Residual), labelled_context(1)
    expected = VARIANTS[name]().ranking_scores(graph, context)
    for parameter in graph.model.parameters():
        parameter.requires_grad = False
    graph.model.train()
    with torch.no_grad():
        frozen = VARIANTS[name]().ranking_scores(graph, context)
    with torch.inference_mode():
        inferred = VARIANTS[name]().ranking_scores(graph, context)
    for group, score in expected.items():
        assert torch.equal(score, frozen[group]) and torch.equal(score, inferred[group])


@pytest.mark.parametrize('name', FROM_GRADIENTS)
def test_an_empty_data_set_and_absent_parts_are_reported(name: str) -> None:
    graph, source = signed_graph(Plain), VARIANTS[name]()
    owner = type(source).__name__
    with pytest.raises(EasyPrunerError, match=f'{owner} needs .* the data set is empty'):
        source.score(graph, Context(batches=list, loss=cross_entropy))
    with pytest.raises(ConfigError, match=f'{owner} needs the training loss'):
        source.score(graph, Context(batches=labelled_batches))
    with pytest.raises(ConfigError, match=f'{owner} needs batches of training data'):
        source.score(graph, Context(loss=cross_entropy))


@pytest.mark.parametrize('name', FROM_GRADIENTS)
def test_batches_and_passes_draw_the_same_and_restore_the_random_state(name: str) -> None:
    graph = signed_graph(Residual)

    def dropped(model: nn.Module, batch: object) -> Tensor:
        images, labels = batch
        return nn.functional.cross_entropy(model(nn.functional.dropout(images, 0.5)), labels)

    def shuffled() -> DataLoader:
        return DataLoader(TensorDataset(*labelled_batches(1)[0]), batch_size=2, shuffle=True)

    def score(seed: int) -> dict[str, Tensor]:
        source = VARIANTS[name]()
        source.batches = 1
        return source.score(graph, Context(seed=seed, batches=shuffled, loss=dropped))

    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    first = score(1)
    assert torch.equal(torch.rand(3), expected), 'the random state has changed'
    same, other = score(1), score(2)
    assert all(torch.equal(same[group], first[group]) for group in first)
    assert any(not torch.equal(other[group], first[group]) for group in first)


@pytest.mark.parametrize('name', VARIANTS)
def test_where_no_channel_is_prunable_there_are_no_scores(name: str) -> None:
    graph = easypruner.trace(nn.Sequential(nn.Flatten(), nn.Linear(192, 5)), example_inputs())
    assert not graph.groups
    if name != 'BNScale':
        assert VARIANTS[name]().score(graph, labelled_context(1)) == {}


@pytest.mark.parametrize(
    ('loss', 'actual'),
    [
        (lambda model, batch: cross_entropy(model, batch).item(), 'a float'),
        (lambda model, batch: None, 'None'),
        (lambda model, batch: model(batch[0]).sum(dim=1), r'a float64 tensor of shape \(\d,\)'),
        (lambda model, batch: model(batch[0])[:0].sum(dim=1), r'a float64 tensor of shape \(0,\)'),
    ],
)
@pytest.mark.parametrize('name', ['Taylor weight', 'Fisher gate', 'Hessian'])
def test_a_loss_that_is_not_one_number_is_reported(
    name: str, loss: Callable[[nn.Module, object], Tensor], actual: str
) -> None:
    with pytest.raises(
        EasyPrunerError, match=f'returns {actual}; expected a tensor with a single number'
    ):
        VARIANTS[name]().score(signed_graph(Plain), Context(batches=labelled_batches, loss=loss))


def test_an_unknown_reduction_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'mean'"):
        BNScale(reduction='maen')
