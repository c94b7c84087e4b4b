"""The check of rules accepts good rules and reports the errors of bad ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from easypruner.graph import Coupling, Operation, rule
from easypruner.graph.coupling.rules import registration
from easypruner.testing import check_rule, example_inputs, randomized_network


# PyTorch 2.4 does not derive a schema from annotations that are strings.
@torch.library.custom_op(
    'eprule::mix', mutates_args=(), schema='(Tensor x, Tensor y, Tensor weight) -> Tensor'
)
def mix(x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """Gate y by one half of the channels of x and add the other; return each product twice."""
    value, gate = x.chunk(2, 1)
    return torch.einsum('nchw,dc->ndhw', value + gate.sigmoid() * y, weight).repeat(1, 2, 1, 1)


@mix.register_fake
def _(x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], 2 * weight.shape[0], *x.shape[2:])


def flops_of_mix(x: Any, y: Any, weight: Any, **kwargs: Any) -> int:
    return 2 * x[0] * x[2] * x[3] * weight[0] * weight[1]


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.side = nn.Conv2d(3, 16, 3), nn.Conv2d(3, 8, 3)
        self.weight = nn.Parameter(torch.rand(6, 8))
        self.last = nn.Conv2d(12, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        # The definition of a custom operation cannot be copied, one that torch.ops has can.
        mixed = torch.ops.eprule.mix(self.first(x), self.side(x), self.weight)
        logits: Tensor = self.last(mixed)
        return logits


@pytest.fixture(autouse=True)
def _forgotten_rules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(registration, '_RULES', dict(registration._RULES))
    return


def register(mistake: str = '') -> None:
    """Register a rule, which may have one mistake."""

    @rule('eprule::mix')
    def couple_mix(coupling: Coupling, operation: Operation) -> None:
        x, y, weight = operation.args
        batch, channels, *extents = coupling.axes_of(x)
        half = coupling.couple_runs(channels, 2)
        if mistake != 'forgets y':
            half = coupling.couple(half, coupling.axes_of(y)[1])
        reads = None if mistake == 'does not say what reads' else 1
        rows, columns = coupling.couple_parameter(weight, {1: half}, reads=reads)
        wrong_order = mistake == 'repeats instead of tiling'
        outputs = rows.repeated(2) if wrong_order else rows.tiled(2)
        coupling.assign(operation.outputs[0], (batch, outputs, *extents))
        if mistake == 'freezes all':
            for tensor in (x, y, weight, operation.outputs[0]):
                coupling.freeze_tensor(tensor, 'mine')
        numbers = {'counts twice': 2, 'counts nothing': 0}
        numbers['counts a width that a cut changes as a number'] = rows.size
        factor = numbers.get(mistake, 1)
        coupling.add_macs(factor, batch, *extents, rows, columns)


def check(**arguments: Any) -> None:
    check_rule(randomized_network(Mixed), example_inputs(), **arguments)


FORMULAS: dict[Any, Callable[..., int]] = {torch.ops.eprule.mix: flops_of_mix}


def test_a_right_rule_passes() -> None:
    register()
    check()
    check(flops=FORMULAS)


def test_torch_counts_attention_that_runs_fused() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    check_rule(nn.Sequential(nn.Linear(3, 8), layer, nn.Linear(8, 2)), torch.rand(2, 5, 3), {})


def test_the_network_is_left_as_it_was() -> None:
    register()
    model = randomized_network(Mixed).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    check_rule(model, example_inputs())
    assert model.training
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize(
    ('mistake', 'words'),
    [
        ('forgets y', "group 'first' alone, seed 0: the forward pass of the pruned Mixed fails"),
        ('does not say what reads', "group 'first' alone, seed 0: verify finds an error of 0."),
        ('repeats instead of tiling', "group 'weight' alone, seed 0: verify finds an error of 0."),
        ('freezes all', 'no channel of this Mixed can be removed: .*mine: eprule::mix in the'),
        ('counts twice', 'before a cut: the graph predicts .* MACs, but torch counts'),
        ('counts nothing', 'before a cut: the graph predicts .* MACs, but torch counts'),
    ],
)
def test_a_bad_rule_is_caught(mistake: str, words: str) -> None:
    register(mistake)
    with pytest.raises(AssertionError, match=words):
        check(flops=FORMULAS)


def test_an_operation_without_a_rule_is_named() -> None:
    with pytest.raises(AssertionError, match=r'^an operation without a rule: eprule::mix in'):
        check()


def test_outputs_that_ignore_the_channels_prove_nothing() -> None:
    register()
    model = randomized_network(Mixed)
    nn.init.zeros_(model.get_parameter('last.weight'))
    with pytest.raises(AssertionError, match='seed 0: the outputs do not depend on the groups'):
        check_rule(model, example_inputs())


def test_multiply_adds_that_ignore_a_cut_are_caught() -> None:
    """Without formulas, they are compared with those of the pruned network."""
    register('counts a width that a cut changes as a number')
    with pytest.raises(AssertionError, match=r'seed 0: the graph .* MACs, but a new trace counts'):
        check()
