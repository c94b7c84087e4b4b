"""Taylor against products of weights and gradients, written out."""

from __future__ import annotations

import pytest
import torch
from easypruner_plugins.taylor import Taylor
from torch import Tensor, nn

import easypruner
from easypruner import Context
from easypruner.errors import ConfigError
from easypruner.testing.networks import Depthwise, Grouped, Plain, Residual, SqueezeExcite
from tests.helpers.scoring import (
    cross_entropy,
    gradients_of,
    labelled_batches,
    labelled_context,
    parameters_of,
    signed_graph,
    unit_total,
)


@pytest.mark.parametrize('over', ['producers', 'group'])
@pytest.mark.parametrize('build', [Residual, Depthwise, Grouped])
def test_the_weight_form_squares_before_it_adds_up(build: type[nn.Module], over: str) -> None:
    graph = signed_graph(build)
    reference = signed_graph(build).model
    squares = {name: torch.zeros_like(p) for name, p in reference.named_parameters()}
    for batch in labelled_batches():
        for name, slope in gradients_of(reference, cross_entropy(reference, batch)).items():
            squares[name] += (slope * reference.get_parameter(name).detach()) ** 2 / 2
    scores = Taylor(form='weight', over=over).score(graph, labelled_context())
    for name, group in graph.groups.items():
        every = [parameters_of(graph, name)] if over == 'group' else [[m] for m in group.producers]
        for layer, members in enumerate(every):
            own = scores[name].reshape(len(every), group.size)[layer]
            sums = [unit_total(graph, squares, members, unit) for unit in range(group.size)]
            assert own.tolist() == pytest.approx(sums, rel=1e-6)


class Gated(nn.Module):
    """A network with gates, factors of 1 on the channels behind some layers."""

    def __init__(self, model: nn.Module, layers: dict[str, int]) -> None:
        super().__init__()
        self.model = model
        self.gates = nn.ParameterDict(
            {
                path.replace('.', '/'): torch.ones(n, dtype=torch.float64)
                for path, n in layers.items()
            }
        )
        for path in layers:
            gate = self.gates[path.replace('.', '/')]
            model.get_submodule(path).register_forward_hook(
                lambda _, __, out, gate=gate: out * gate.view(1, -1, *[1] * (out.dim() - 2))
            )

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


@pytest.mark.parametrize(
    ('build', 'group', 'layers'),
    [
        (Residual, 'stem.0', ['stem.1', 'branch.2']),
        (Residual, 'branch.0.0', ['branch.0.1']),
        (Depthwise, 'project', ['project']),
        (SqueezeExcite, 'squeeze', ['squeeze']),
    ],
)
def test_the_gate_form_is_the_squared_gradient_of_a_gate(
    build: type[nn.Module], group: str, layers: list[str]
) -> None:
    graph = signed_graph(build)
    size = graph.groups[group].size
    gated = Gated(signed_graph(build).model, dict.fromkeys(layers, size))
    expected = torch.zeros(len(layers), size, dtype=torch.float64)
    for batch in labelled_batches():
        slopes = gradients_of(gated, cross_entropy(gated, batch))
        for row, path in enumerate(layers):
            expected[row] += slopes[f'gates.{path.replace(".", "/")}'] ** 2 / 2
    assert bool((expected > 0).any())
    torch.testing.assert_close(Taylor().score(graph, labelled_context())[group], expected)


def test_scores_of_coupled_layers_are_added_up() -> None:
    graph = signed_graph(Residual)
    source = Taylor()
    layers = source.score(graph, labelled_context())['stem.0']
    assert torch.equal(
        source.ranking_scores(graph, labelled_context())['stem.0'], layers.sum(dim=0)
    )


def test_no_more_batches_are_read_than_requested() -> None:
    graph = signed_graph(Plain)
    first = Taylor(batches=1).score(graph, labelled_context())
    assert all(
        torch.equal(score, first[name])
        for name, score in Taylor().score(graph, labelled_context(1)).items()
    )
    assert any(
        not torch.equal(score, first[name])
        for name, score in Taylor(batches=2).score(graph, labelled_context()).items()
    )


def test_dropout_does_not_count() -> None:
    def build() -> nn.Module:
        return nn.Sequential(Plain(), nn.Dropout(0.9))

    graph = signed_graph(build)
    graph.model.train()
    plain = signed_graph(Plain)
    assert torch.equal(
        Taylor().score(graph, labelled_context())['0.body.0.0'],
        Taylor().score(plain, labelled_context())['body.0.0'],
    )


def test_a_loss_without_a_gradient_is_reported() -> None:
    graph = signed_graph(Plain)

    def detached(model: nn.Module, batch: object) -> Tensor:
        return cross_entropy(model, batch).detach()

    with pytest.raises(ValueError, match='Taylor needs the gradient of the training loss, but'):
        Taylor().score(graph, Context(batches=labelled_batches, loss=detached))


def test_a_nan_loss_is_reported() -> None:
    graph = signed_graph(Plain)
    images, labels = labelled_batches()[0]
    context = Context(batches=lambda: [(images * float('inf'), labels)], loss=cross_entropy)
    with pytest.raises(
        ValueError, match=r'Taylor needs the training loss, but that is nan, although'
    ):
        Taylor().score(graph, context)


def test_arguments_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"form='gates' of Taylor .* did you mean 'gate'"):
        Taylor(form='gates')
    with pytest.raises(ConfigError, match="leave over out, or use form='weight'"):
        Taylor(over='group')
    for batches in (0, 1.5, True):
        with pytest.raises(ConfigError, match=f'batches={batches} of Taylor'):
            Taylor(batches=batches)  # type: ignore[arg-type]


def test_half_precision_does_not_lose_small_products() -> None:
    model = nn.Sequential(nn.Linear(2, 3, bias=False), nn.Linear(3, 1, bias=False)).half()
    with torch.no_grad():
        model[0].weight.fill_(2**-10)
    graph = easypruner.trace(model, torch.zeros(1, 2).half())
    context = Context(
        batches=lambda: [2**-10], loss=lambda model, part: (model[0].weight * part).sum()
    )
    assert Taylor(form='weight').score(graph, context)['0'].tolist() == [[2**-39] * 3]
    assert Taylor(form='gate').score(graph, context)['0'].tolist() == [[2**-38] * 3]
