"""Sources on weights that are computed from other tensors: scores are those of the weights."""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Callable

import pytest
import torch
from easypruner_plugins.apoz import APoZ
from easypruner_plugins.fisher import Fisher
from easypruner_plugins.fpgm import FPGM
from easypruner_plugins.group import Group
from easypruner_plugins.group_lasso import GroupLasso
from easypruner_plugins.hessian import Hessian
from easypruner_plugins.hrank import HRank
from easypruner_plugins.lamp import Lamp
from easypruner_plugins.lp_norm import L1Norm, L2Norm, LpNorm
from easypruner_plugins.mean_activation import MeanActivation
from easypruner_plugins.synflow import Synflow
from easypruner_plugins.taylor import Taylor
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

import easypruner
from easypruner import Context, MaskSource
from easypruner.graph.recording.parametrized import computed_weights
from easypruner.strategies.measures.activations import producer_probes, reader_probes
from easypruner.strategies.measures.compensation import mean_compensation
from easypruner.strategies.measures.units import used_members
from easypruner.testing import example_inputs
from tests.helpers.scoring import assert_left_alone, cross_entropy, labelled_batches, state_of

Build = Callable[[], MaskSource]
Wrap = Callable[[nn.Module], nn.Module]

SOURCES: dict[str, Build] = {
    'L1Norm': L1Norm,
    'L2Norm group': functools.partial(L2Norm, over='group'),
    'LpNorm': functools.partial(LpNorm, p=3),
    'LpNorm group': functools.partial(LpNorm, p=0.5, over='group'),
    'FPGM': FPGM,
    'Lamp': Lamp,
    'Group': Group,
    'Synflow': Synflow,
    'Synflow group': functools.partial(Synflow, over='group'),
    'Taylor': Taylor,
    'Taylor weight': functools.partial(Taylor, form='weight'),
    'Taylor group': functools.partial(Taylor, form='weight', over='group'),
    'Fisher': Fisher,
    'Fisher gate': functools.partial(Fisher, form='gate'),
    'Hessian': functools.partial(Hessian, samples=2),
    'Hessian group': functools.partial(Hessian, samples=2, over='group'),
    'APoZ': APoZ,
    'MeanActivation': MeanActivation,
    'HRank': HRank,
}

FROM_WEIGHTS = [name for name in SOURCES if name not in ('APoZ', 'MeanActivation', 'HRank')]


class Layers(nn.Module):
    """One layer of each kind behind another, all of them with biases."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.ConvTranspose2d(8, 6, 3)
        self.hidden, self.head = nn.Linear(6, 6), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(x).relu()).relu().mean((2, 3))
        return self.head(self.hidden(x).relu())


def plain() -> Layers:
    torch.manual_seed(0)
    return Layers().double().eval()


def context() -> Context:
    batches = labelled_batches()
    return Context(
        batches=lambda: batches,
        loss=cross_entropy,
        forward=lambda model, batch: model(batch[0]),
    )


def scores(name: str, model: nn.Module) -> list[Tensor]:
    """Return the scores of all groups in order, because names depend on how weights are stored."""
    graph = easypruner.trace(model, example_inputs().double())
    assert [group.size for group in graph.groups.values()] == [8, 6, 6]
    return list(SOURCES[name]().ranking_scores(graph, context()).values())


def assert_same(name: str, model: nn.Module, other: nn.Module) -> None:
    actual, expected = scores(name, model), scores(name, other)
    assert len(expected[0].unique()) > 1
    for one, two in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-8, atol=1e-14)


def modern(layer: nn.Module, dim: int | None = 0) -> nn.Module:
    return parametrizations.weight_norm(layer, dim=dim)


def older(layer: nn.Module, dim: int | None = 0) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', FutureWarning)
        return nn.utils.weight_norm(layer, dim=dim)


def parts(layer: nn.Module) -> tuple[Tensor, Tensor]:
    """Return length and direction of a weight."""
    if hasattr(layer, 'weight_v'):
        return layer.weight_g, layer.weight_v
    own = layer.parametrizations.weight
    return own.original0, own.original1


@torch.no_grad()
def with_weight_norm(how: Callable[..., nn.Module], dim: int | None) -> nn.Module:
    """Return the plain network with weight norm, its directions of any length."""
    model = plain()
    for layer in model.children():
        how(layer, dim=dim)
        _, direction = parts(layer)
        generator = torch.Generator().manual_seed(5)
        shape = [1 if dim is None or i != dim else n for i, n in enumerate(direction.shape)]
        direction *= torch.empty(shape).uniform_(-3, 3, generator=generator).exp()
    return model


@pytest.mark.parametrize('dim', [0, 1, None])
@pytest.mark.parametrize('how', [modern, older])
@pytest.mark.parametrize('name', SOURCES)
def test_weight_norm(name: str, how: Callable[..., nn.Module], dim: int | None) -> None:
    assert_same(name, with_weight_norm(how, dim), plain())


@pytest.mark.parametrize('name', SOURCES)
def test_weights_set_by_a_hook_before_an_update_do_not_count(name: str) -> None:
    model, expected = with_weight_norm(older, 0), plain()
    model(example_inputs().double()).sum().backward()
    with torch.no_grad():
        for layer, other in zip(model.children(), expected.children(), strict=True):
            factors = torch.linspace(0.5, 2, len(other.weight)).double()
            factors = factors.view(-1, *[1] * (other.weight.dim() - 1))
            parts(layer)[0].mul_(factors)
            other.weight.mul_(factors)
    assert_same(name, model, expected)


@pytest.mark.parametrize('name', SOURCES)
def test_masks_of_torch(name: str) -> None:
    model, expected = plain(), plain()
    for layer, other in zip(model.children(), expected.children(), strict=True):
        torch.manual_seed(1)
        prune.random_unstructured(layer, 'weight', 0.4)
        with torch.no_grad():
            other.weight.mul_(layer.weight_mask)
            # Masked weights may have any value.
            layer.weight_orig.add_(9 * (1 - layer.weight_mask))
    assert_same(name, model, expected)


class Halved(nn.Module):
    """Half of its input, transposed."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight.transpose(0, 1) / 2

    def right_inverse(self, weight: Tensor) -> Tensor:
        return 2 * weight.transpose(0, 1)


class Lengths(nn.Module):
    """Weight norm over all dimensions but the first, written by hand."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.lengths = nn.Parameter(torch.ones(units).double())

    def forward(self, weight: Tensor) -> Tensor:
        flat = weight.flatten(1)
        flat = flat / flat.square().sum(dim=1).sqrt()[:, None] * self.lengths[:, None]
        return flat.view(weight.shape)

    def right_inverse(self, weight: Tensor) -> Tensor:
        self.lengths.data = weight.detach().flatten(1).square().sum(dim=1).sqrt()
        return 7 * weight


class Factors(nn.Module):
    """A factor for each input."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.logarithms = nn.Parameter(torch.linspace(-2, 3, inputs).double())

    def forward(self, weight: Tensor) -> Tensor:
        return self.logarithms.exp() * weight

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight.detach() / self.logarithms.exp()


def with_parametrizations(kind: type[nn.Module]) -> nn.Module:
    model = plain()
    for layer in model.children() if kind is Lengths else (model.hidden, model.head):
        size = () if kind is Halved else (layer.weight.shape[0 if kind is Lengths else 1],)
        parametrize.register_parametrization(layer, 'weight', kind(*size))
    return model


@pytest.mark.parametrize('name', SOURCES)
@pytest.mark.parametrize('kind', [Halved, Lengths, Factors])
def test_custom_parametrizations(name: str, kind: type[nn.Module]) -> None:
    assert_same(name, with_parametrizations(kind), plain())


@pytest.mark.parametrize('how', [modern, older, Lengths, Factors])
def test_layers_are_read_once_each(how: Callable[..., nn.Module]) -> None:
    own = isinstance(how, type)
    for places in (reader_probes, producer_probes):
        seen, expected = (
            [(probe.path, probe.index.tolist()) for probe in places(graph)]
            for graph in (
                easypruner.trace(model, example_inputs().double())
                for model in (
                    with_parametrizations(how) if own else with_weight_norm(how, 0),
                    plain(),
                )
            )
        )
        assert seen == expected


def test_a_weight_reads_channels_if_any_part_of_it_does() -> None:
    graph = easypruner.trace(with_weight_norm(modern, 0), example_inputs().double())

    def roles() -> dict[str, set[tuple[str, int, str]]]:
        every = used_members(graph).items()
        return {name: {(m.param, m.dim, m.role) for m in members} for name, members in every}

    expected = roles()
    for group in graph.groups.values():
        vars(group)['members'] = group.members[::-1]
    assert roles() == expected
    assert ('second.weight', 0, 'in') in expected['first.parametrizations.weight.original1']


def test_dimensions_of_one_index_are_distinguished() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Conv2d(1, 2, 1))
    parametrize.register_parametrization(model[0], 'weight', nn.Identity())
    (weight,) = computed_weights(model).values()
    (source,) = weight.sources
    assert weight.name == '0.weight' and source == '0.parametrizations.weight.original'
    assert [weight.dim_of(source, dim) for dim in range(4)] == [0, 1, 2, 3]


class Product(nn.Module):
    """A product of two factors."""

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return first @ second

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        left, values, right = torch.linalg.svd(weight, full_matrices=False)
        return left * values, right


class TwoLayers(nn.Module):
    """A layer whose weight is a product."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        left, values, right = torch.linalg.svd(layer.weight.detach(), full_matrices=False)
        self.second, self.first = nn.Parameter(left * values), nn.Parameter(right)
        self.bias = nn.Parameter(layer.bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.second @ self.first, self.bias)


@pytest.mark.parametrize('name', FROM_WEIGHTS)
def test_factors_with_channels_between_them_are_weights_of_their_own(name: str) -> None:
    model, expected = plain(), plain()
    parametrize.register_parametrization(model.hidden, 'weight', Product())
    expected.hidden = TwoLayers(expected.hidden)
    one, two = (easypruner.trace(m, example_inputs().double()) for m in (model, expected))
    assert [group.size for group in one.groups.values()] == [8, 6, 6, 6]
    actual, wanted = (SOURCES[name]().ranking_scores(g, context()) for g in (one, two))
    for own, other in zip(actual.values(), wanted.values(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-8, atol=1e-14)


@pytest.mark.parametrize(
    'wrap', [parametrizations.spectral_norm, parametrizations.orthogonal, 'spectral hook']
)
@pytest.mark.parametrize('name', [name for name in SOURCES if name != 'APoZ'])
def test_weights_that_stay_whole_count_as_they_are(name: str, wrap: Wrap | str) -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU(), nn.Conv2d(6, 9, 1),
              nn.ReLU(), nn.Conv2d(9, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]  # fmt: skip
    model = nn.Sequential(*layers).double()
    expected = copy.deepcopy(model).eval()
    if wrap == 'spectral hook':
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', FutureWarning)
            nn.utils.spectral_norm(model[2])
    else:
        wrap(model[2])
    model.eval()(example_inputs().double())
    expected[2].weight.data = model[2].weight.detach().clone()
    one, two = (easypruner.trace(m, example_inputs().double()) for m in (model.train(), expected))
    actual, wanted = (SOURCES[name]().ranking_scores(g, context()) for g in (one, two))
    whole = wrap is parametrizations.orthogonal
    assert len(actual) == (1 if whole else 3) and list(wanted) == ['0', '2', '4']
    if not name.startswith('Hessian'):
        # It also draws signs for other weights.
        for own, other in zip(actual.values(), list(wanted.values())[-len(actual) :], strict=True):
            torch.testing.assert_close(own, other, rtol=1e-8, atol=1e-14)


@pytest.mark.parametrize('how', [modern, older, 'masks'])
@pytest.mark.parametrize('name', FROM_WEIGHTS)
def test_the_model_stays_unchanged(name: str, how: Callable[..., nn.Module] | str) -> None:
    if how == 'masks':
        model = plain()
        prune.random_unstructured(model.first, 'weight', 0.4)
    else:
        model = with_weight_norm(how, 0)
    model.train()(example_inputs().double()).sum().backward()
    graph = easypruner.trace(model, example_inputs().double())
    before = state_of(model)
    SOURCES[name]().ranking_scores(graph, context())
    assert_left_alone(model, before)


@pytest.mark.parametrize('dim', [0, 1, None, 'masks'])
def test_readers_of_channels_are_computed_once(dim: int | str | None) -> None:
    """A compensated cut is exact if the removed channels are constant."""
    if dim == 'masks':
        model = plain()
        for layer in model.children():
            prune.l1_unstructured(layer, 'weight', 0.2)
    else:
        model = with_weight_norm(modern, dim)
    gone = torch.arange(6) < 3
    with torch.no_grad():
        # The hidden layer's first channels are their biases.
        if dim == 'masks':
            model.hidden.weight_orig[:3] = 0
        elif dim == 0:
            parts(model.hidden)[0][:3] = 0
        else:
            parts(model.hidden)[1][:3] = 0
        model.hidden.bias[:3] = torch.tensor([1.0, 2.0, 3.0])
    expected = model(example_inputs().double())
    graph = easypruner.trace(model, example_inputs().double())
    masks = {list(graph.groups)[2]: ~gone}
    mean_compensation(graph, masks, context(), 2, 'Me').apply()
    easypruner.prune(model, masks, graph=graph)
    torch.testing.assert_close(model(example_inputs().double()), expected)


@pytest.mark.parametrize('how', [modern, older])
def test_under_weight_norm_the_lengths_are_pushed(how: Callable[..., nn.Module]) -> None:
    model = with_weight_norm(how, 0)
    graph = easypruner.trace(model, example_inputs().double())
    lasso = GroupLasso(1.0, group_strengths=dict.fromkeys(list(graph.groups)[:2], 0.0))
    length, direction = parts(model.hidden)
    penalty = lasso.penalty(graph, None)
    penalty.backward()
    assert penalty.item() == pytest.approx(length.abs().sum().item())
    torch.testing.assert_close(length.grad, length.detach().sign())
    assert direction.grad is None or not direction.grad.any()


def test_with_one_length_for_all_the_directions_are_pushed() -> None:
    model = with_weight_norm(modern, None)
    graph = easypruner.trace(model, example_inputs().double())
    _, direction = parts(model.hidden)
    lasso = GroupLasso(1.0, group_strengths=dict.fromkeys(list(graph.groups)[:2], 0.0))
    assert lasso.penalty(graph, None).item() == pytest.approx(direction.norm(dim=1).sum().item())
