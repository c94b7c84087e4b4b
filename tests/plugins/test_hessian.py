"""Hessian against second derivatives, one weight at a time."""

from __future__ import annotations

import pytest
import torch
from easypruner_plugins.hessian import Hessian
from torch import Tensor, nn

import easypruner
from easypruner import Context
from easypruner.graph import ChannelGraph
from easypruner.testing.networks import block
from tests.helpers.scoring import labelled_context, parameters_of, signed_graph


def perceptron() -> ChannelGraph:
    """Return the graph of a few weights in two groups, with second derivatives."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2, bias=False), nn.Tanh(), nn.Linear(2, 1)
    )
    return easypruner.trace(model.double(), torch.zeros(1, 2).double())


POINTS = torch.randn(6, 2, generator=torch.Generator().manual_seed(1)).double()


def fit(model: nn.Module, points: Tensor) -> Tensor:
    return ((model(points)[:, 0] - points.prod(dim=1)) ** 2).mean()


def on_points(seed: int = 0) -> Context:
    return Context(seed=seed, batches=lambda: [POINTS], loss=fit)


DRAWS = 1500


def hessian(graph: ChannelGraph, names: list[str]) -> Tensor:
    """Return all second derivatives of the loss, weight by weight."""
    parameters = [graph.parameter(name) for name in names]
    loss = fit(graph.model, POINTS)
    slopes = torch.autograd.grad(loss, parameters, create_graph=True)
    rows = [
        torch.autograd.grad(one, parameters, retain_graph=True)
        for slope in slopes
        for one in slope.flatten()
    ]
    return torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])


def counts(graph: ChannelGraph, names: list[str], members: list, unit: int) -> Tensor:
    """Return how often each weight belongs to a unit, in a row."""
    row = {name: torch.zeros_like(graph.parameter(name)) for name in names}
    for member in members:
        for index in member.index[unit].tolist():
            row[member.param].select(member.dim, index).add_(1)
    return torch.cat([row[name].flatten() for name in names])


@pytest.mark.parametrize('over', ['producers', 'group'])
def test_half_the_squared_weight_times_the_curvature(over: str) -> None:
    graph = perceptron()
    scores = Hessian(over=over, samples=DRAWS).score(graph, on_points())
    chosen = {
        name: list(group.producers) if over == 'producers' else parameters_of(graph, name)
        for name, group in graph.groups.items()
    }
    names = list(dict.fromkeys(m.param for members in chosen.values() for m in members))
    weights = torch.cat([graph.parameter(name).detach().flatten() for name in names])
    terms = hessian(graph, names) * weights * weights[:, None] / 2
    tensor = torch.cat([torch.full((graph.parameter(n).numel(),), k) for k, n in enumerate(names)])
    # The error of the estimate comes from the terms of other weights of a tensor.
    beside = (terms * (tensor == tensor[:, None])).square().fill_diagonal_(0)
    told_apart = 0
    for name, members in chosen.items():
        for unit, actual in enumerate(scores[name].reshape(-1).tolist()):
            share = counts(graph, names, members, unit)
            exact = float(share @ terms.diagonal())
            deviation = (beside * (share + share[:, None]) ** 2).sum() / 2 / DRAWS
            assert abs(actual - exact) < 4 * float(deviation) ** 0.5
            told_apart += abs(exact) > 8 * float(deviation) ** 0.5
    assert told_apart, 'an estimate of half or twice the size would have passed'


def test_where_weights_of_a_layer_do_not_interact_one_draw_is_exact() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 6, bias=False), nn.Linear(6, 1, bias=False)).double()
    graph = easypruner.trace(model, torch.zeros(1, 1).double())

    def cubes(model: nn.Module, batch: Tensor) -> Tensor:
        # Weights of other layers do not add noise.
        others = 1e3 * model[0].weight.sum() * model[1].weight.sum()
        return (model[0].weight ** 3).sum() * batch + others

    context = Context(batches=lambda: [torch.tensor(1.0), torch.tensor(3.0)], loss=cubes)
    weight = model[0].weight.detach().flatten()
    expected = [0.5 * float(w) ** 2 * 6 * float(w) * 2 for w in weight]
    assert Hessian(samples=1).score(graph, context)['0'][0].tolist() == pytest.approx(expected)


def test_a_loss_without_curvature_scores_zero() -> None:
    model = nn.Sequential(nn.Linear(2, 3, bias=False), nn.Linear(3, 1, bias=False))
    graph = easypruner.trace(model, torch.zeros(1, 2))
    context = Context(batches=lambda: [1], loss=lambda model, _: model[0].weight.sum())
    assert Hessian().score(graph, context)['0'].tolist() == [[0, 0, 0]]


def test_draws_depend_on_the_seed_only() -> None:
    graph = perceptron()
    one, same, other = (Hessian().score(graph, on_points(seed))['0'] for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert torch.equal(Hessian(seed=1).score(graph, on_points(2))['0'], one)


class Attending(nn.Module):
    """Attention, whose fused kernels have no second derivative."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = block(3, 8)
        self.query, self.key, self.value = (nn.Linear(8, 8) for _ in range(3))
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)[:, None]
        x = nn.functional.scaled_dot_product_attention(self.query(x), self.key(x), self.value(x))
        return self.head(x[:, 0].mean(1))


def test_attention_is_differentiated_twice() -> None:
    graph = signed_graph(Attending)
    assert bool(Hessian(samples=1).score(graph, labelled_context())['stem.0'].any())
