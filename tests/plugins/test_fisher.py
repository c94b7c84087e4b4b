"""Fisher against squared gradients of single samples, written out."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import pytest
import torch
from easypruner_plugins.fisher import Fisher
from torch import Tensor, nn

from easypruner import Context
from easypruner.errors import ConfigError, EasyPrunerError
from easypruner.strategies.measures.gradients import samples_of
from easypruner.testing.networks import Depthwise, Plain, Residual
from tests.helpers.scoring import (
    BATCH,
    cross_entropy,
    gradients_of,
    labelled_batches,
    labelled_context,
    parameters_of,
    signed_graph,
    unit_total,
)


def information(model: nn.Module, per: str) -> dict[str, Tensor]:
    """Return the mean squared gradient of each weight."""
    sums = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    count = 0
    for images, labels in labelled_batches():
        cuts = [slice(n, n + 1) for n in range(BATCH)] if per == 'sample' else [slice(None)]
        for cut in cuts:
            slopes = gradients_of(model, cross_entropy(model, (images[cut], labels[cut])))
            for name, slope in slopes.items():
                sums[name] += slope**2
            count += 1
    return {name: total / count for name, total in sums.items()}


@pytest.mark.parametrize('per', ['sample', 'batch'])
@pytest.mark.parametrize('over', ['producers', 'group'])
@pytest.mark.parametrize('build', [Residual, Depthwise])
def test_half_the_squared_weight_times_the_information(
    build: type[nn.Module], over: str, per: str
) -> None:
    graph = signed_graph(build)
    growth = {
        name: value * graph.parameter(name).detach() ** 2 / 2
        for name, value in information(signed_graph(build).model, per).items()
    }
    scores = Fisher(over=over, per=per).score(graph, labelled_context())
    for name, group in graph.groups.items():
        every = [parameters_of(graph, name)] if over == 'group' else [[m] for m in group.producers]
        for layer, members in enumerate(every):
            own = scores[name].reshape(len(every), group.size)[layer]
            sums = [unit_total(graph, growth, members, unit) for unit in range(group.size)]
            assert own.tolist() == pytest.approx(sums, rel=1e-6)


def test_the_gate_form_is_the_papers() -> None:
    graph = signed_graph(Residual)
    model = signed_graph(Residual).model
    norm = model.branch[0][1]
    expected = [0.0] * 6
    for images, labels in labelled_batches():
        for n in range(BATCH):
            batch = images[n : n + 1], labels[n : n + 1]
            slopes = gradients_of(model, cross_entropy(model, batch))
            for unit in range(6):
                gate = norm.weight[unit].item() * slopes['branch.0.1.weight'][unit].item()
                gate += norm.bias[unit].item() * slopes['branch.0.1.bias'][unit].item()
                expected[unit] += gate**2 / (2 * 2 * BATCH)
    scores = Fisher(form='gate').score(graph, labelled_context())['branch.0.0']
    assert scores[0].tolist() == pytest.approx(expected, rel=1e-6)


def test_samples_of_every_kind_of_batch() -> None:
    images, labels = torch.arange(6.0).view(3, 2), torch.tensor([7, 8, 9])
    pair = namedtuple('pair', 'images labels')
    for batch in ((images, labels), [images, labels], pair(images, labels)):
        samples = samples_of(batch, 'Me')
        assert [type(sample) for sample in samples] == [type(batch)] * 3
        assert torch.equal(samples[1][0], images[1:2]) and samples[2][1].tolist() == [9]
    assert [sample.tolist() for sample in samples_of(labels, 'Me')] == [[7], [8], [9]]
    assert samples_of((images, None), 'Me')[0][1] is None
    mapped = samples_of({'inputs': [images[0], images[1, :1]], 'data_samples': ['a', 'b']}, 'Me')
    assert mapped[1] == {'inputs': [images[1, :1]], 'data_samples': ['b']}


@pytest.mark.parametrize(
    'batch',
    [
        'text',
        torch.tensor(1.0),
        [('a', 1), ('b', 2)],
        ([torch.zeros(3)], [torch.zeros(3)]),
        (torch.zeros(3), torch.zeros(2)),
        {'inputs': torch.zeros(3), 'scale': 2.0},
        {},
        None,
    ],
)
def test_a_batch_that_cannot_be_split(batch: Any) -> None:
    with pytest.raises(EasyPrunerError, match=r"Me measures single samples.*per='batch'"):
        samples_of(batch, 'Me')


def test_batches_of_any_build_can_be_taken_whole() -> None:
    batches = [{'data': batch, 'note': object()} for batch in labelled_batches()]

    def loss(model: nn.Module, batch: Any) -> Tensor:
        return cross_entropy(model, batch['data'])

    context = Context(batches=lambda: batches, loss=loss)
    whole = Fisher(per='batch').score(signed_graph(Plain), context)
    expected = Fisher(per='batch').score(signed_graph(Plain), labelled_context())
    assert all(torch.equal(whole[name], expected[name]) for name in expected)
    with pytest.raises(EasyPrunerError, match='Fisher measures single samples'):
        Fisher().score(signed_graph(Plain), context)


def test_a_misspelled_choice_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"per='smaple' of Fisher .* did you mean 'sample'"):
        Fisher(per='smaple')
