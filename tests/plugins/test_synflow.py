"""Synflow against flows written out, and the conservation law of the paper."""

from __future__ import annotations

import itertools

import pytest
import torch
from easypruner_plugins.synflow import Synflow
from torch import Tensor, nn

import easypruner
from easypruner import Context
from easypruner.errors import EasyPrunerError
from easypruner.testing import example_inputs
from easypruner.testing.networks import Plain
from tests.helpers.networks import NETWORKS, TwoInputs
from tests.helpers.scoring import signed_graph


def perceptron(depth: int = 3, width: int = 4) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for number in range(depth):
        layers += [nn.Linear(2 if number == 0 else width, width, bias=False), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 3, bias=False))


def test_the_sum_over_all_paths_through_a_unit() -> None:
    model = perceptron()
    graph = easypruner.trace(model, torch.randn(1, 2))
    scores = Synflow().score(graph, Context())
    weights = [
        layer.weight.detach().double().abs() for layer in model if isinstance(layer, nn.Linear)
    ]
    through: dict[tuple[int, int], float] = {}
    for path in itertools.product(range(2), range(4), range(4), range(4), range(3)):
        flow = 1.0
        for layer, weight in enumerate(weights):
            flow *= float(weight[path[layer + 1], path[layer]])
        for layer in range(3):
            through[layer, path[layer + 1]] = through.get((layer, path[layer + 1]), 0.0) + flow
    for layer, name in enumerate(('0', '2', '4')):
        expected = [through[layer, unit] for unit in range(4)]
        assert scores[name][0].tolist() == pytest.approx(expected, rel=1e-12)


def test_the_same_flow_passes_every_layer() -> None:
    model = perceptron(depth=5)
    scores = Synflow().score(easypruner.trace(model, torch.randn(1, 2)), Context())
    sums = [float(score.sum()) for score in scores.values()]
    assert len(sums) == 5
    assert sums == pytest.approx([sums[0]] * 5, rel=1e-12)


def flow_by_hand(model: Plain) -> Tensor:
    """Return the flow through the units of the first layer, in a network with batch norms."""
    first, second = model.body[0], model.body[1]

    def norm(layer: nn.BatchNorm2d, x: Tensor) -> Tensor:
        scale = layer.weight.abs() / (layer.running_var + layer.eps).sqrt()
        return x * scale.view(1, -1, 1, 1) + layer.bias.abs().view(1, -1, 1, 1)

    weight = first[0].weight.detach().abs().requires_grad_()
    x = norm(first[1], nn.functional.conv2d(torch.ones(2, 3, 8, 8).double(), weight, padding=1))
    x = norm(second[1], nn.functional.conv2d(x, second[0].weight.abs(), padding=1))
    total = (x.mean((2, 3)) @ model.head.weight.abs().T + model.head.bias.abs()).sum()
    return (torch.autograd.grad(total, weight)[0] * weight).sum((1, 2, 3))


def test_batch_norms_scale_but_do_not_subtract() -> None:
    graph = signed_graph(Plain)
    with torch.no_grad():
        # If it was subtracted, nothing would pass the ReLU.
        graph.model.body[0][1].running_mean.fill_(1e6)
    torch.testing.assert_close(
        Synflow().score(graph, Context())['body.0.0'][0], flow_by_hand(graph.model)
    )


def test_signs_and_inputs_do_not_matter() -> None:
    graph = signed_graph(Plain)
    before = Synflow().score(graph, Context())
    with torch.no_grad():
        for parameter in graph.model.parameters():
            parameter.neg_()
    graph.example_inputs = torch.zeros_like(graph.example_inputs)
    after = Synflow().score(graph, Context())
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_deep_networks_do_not_overflow() -> None:
    model = perceptron(depth=60, width=40)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 10
    scores = Synflow().score(easypruner.trace(model, torch.randn(1, 2)), Context())
    assert all(bool(torch.isfinite(score).all()) for score in scores.values())
    assert max(float(score.max()) for score in scores.values()) > torch.finfo(torch.float32).max


def test_too_deep_a_network_is_reported() -> None:
    model = perceptron(depth=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1e38)
    model.double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 1e100
    graph = easypruner.trace(model, torch.randn(1, 2).double())
    with pytest.raises(
        EasyPrunerError, match=r'that is inf, although no weight .* use another source'
    ):
        Synflow().score(graph, Context())


def test_a_network_that_does_not_conduct_is_reported() -> None:
    graph = signed_graph(Plain)
    with torch.no_grad():
        graph.model.head.weight.zero_()
    with pytest.raises(EasyPrunerError, match='nothing flows through this Plain'):
        Synflow().score(graph, Context())


def test_outputs_behind_a_softmax_are_reported() -> None:
    model = nn.Sequential(nn.Linear(2, 4, bias=False), nn.Linear(4, 3), nn.Softmax(dim=1)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.5)
    graph = easypruner.trace(model, torch.randn(1, 2))
    with pytest.raises(EasyPrunerError, match='as behind a softmax'):
        Synflow().score(graph, Context())


def test_several_inputs_and_outputs() -> None:
    torch.manual_seed(0)
    inputs = {'image': torch.randn(1, 3, 8, 8), 'depth': torch.randn(1, 1, 8, 8)}
    graph = easypruner.trace(TwoInputs().eval(), inputs)
    scores = Synflow().score(graph, Context())
    assert all(bool((score > 0).all()) for score in scores.values())


def test_token_numbers_are_unchanged() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(9, 6), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    tokens = torch.tensor([[8, 3]])
    graph = easypruner.trace(model, tokens)
    scores = Synflow().score(graph, Context())
    flow = model[0].weight[tokens[0]].abs().sum(0).double() @ model[1].weight.abs().double().T
    expected = flow * model[3].weight.abs().sum(0)
    torch.testing.assert_close(scores['1'][0], expected.detach())


@pytest.mark.parametrize('build', NETWORKS)
def test_after_a_cut_the_graph_still_has_its_inputs(build: type[nn.Module]) -> None:
    graph = signed_graph(build)
    name, group = next(iter(graph.groups.items()))
    easypruner.prune(graph.model, {name: torch.arange(group.size) > 0}, graph=graph)
    assert Synflow().score(graph, Context())[name].shape[-1] == group.size - 1
    assert graph.model(example_inputs().double()).shape == (2, 5)
