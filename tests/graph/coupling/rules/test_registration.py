"""Rules that users add for operations of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

import easypruner
from easypruner.errors import PluginError, TraceError
from easypruner.graph import Coupling, Operation, rule
from easypruner.graph.coupling.rules import registration

IMAGES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
# PyTorch 2.4 does not derive a schema from annotations that are strings.
SCHEMA = '(Tensor x, Tensor factors) -> Tensor'


@torch.library.custom_op('eptest::scale', mutates_args=(), schema=SCHEMA)
def scale(x: Tensor, factors: Tensor) -> Tensor:
    """A custom operation with a fake implementation."""
    return x * factors.view(-1, 1, 1)


@scale.register_fake
def _(x: Tensor, factors: Tensor) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op('eptest::cat', mutates_args=(), schema='(Tensor[] tensors) -> Tensor')
def rotate(tensors: list[Tensor]) -> Tensor:
    """Not ATen's operation of that name: it rotates the channels as well."""
    return torch.cat(list(tensors), 1).roll(1, 1)


@rotate.register_fake
def _(tensors: list[Tensor]) -> Tensor:
    return torch.cat(list(tensors), 1)


@torch.library.custom_op('eptest::no_fake', mutates_args=(), schema=SCHEMA)
def no_fake(x: Tensor, factors: Tensor) -> Tensor:
    """A custom operation that runs on values only."""
    return x * factors.view(-1, 1, 1)


@torch.library.custom_op(
    'eptest::scale_', mutates_args=('x',), schema='(Tensor(a!) x, Tensor factors) -> ()'
)
def scale_in_place(x: Tensor, factors: Tensor) -> None:
    """It changes its argument and returns nothing."""
    x.mul_(factors.view(-1, 1, 1))


torch.library.define('eptest::half', '(Tensor x) -> Tensor', tags=(torch.Tag.pointwise,))
torch.library.impl('eptest::half', 'CompositeExplicitAutograd', lambda x: x / 2)


class Scaled(nn.Module):
    """Two convolutions, and between them an operation with a parameter for each channel."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor | None]) -> None:
        super().__init__()
        # The definition of a custom operation cannot be copied, a function that calls it can.
        self.function = lambda x, factors: function(x, factors)
        self.first, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)
        self.factors = nn.Parameter(torch.rand(8) + 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        result = self.function(x, self.factors)
        return self.last(x if result is None else result)


def couple_scale(coupling: Coupling, operation: Operation) -> None:
    x, factors = operation.args
    batch, channels, *extents = coupling.axes_of(x)
    axes = (batch, coupling.couple(channels, coupling.axes_of(factors)[0]), *extents)
    coupling.note_use(factors, 'scale.factors')
    for output in operation.outputs:
        coupling.assign(output, axes)


@pytest.fixture(autouse=True)
def _forgotten_rules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(registration, '_RULES', dict(registration._RULES))
    return


def members(model: nn.Module) -> list[tuple[str, int]]:
    graph = easypruner.trace(model, IMAGES)
    return [(m.param, m.dim) for group in graph.groups.values() for m in group.members]


COUPLED = [('first.weight', 0), ('first.bias', 0), ('factors', 0), ('last.weight', 1)]


@pytest.mark.parametrize(
    ('name', 'function'),
    [
        ('eptest::scale', scale),
        ('eptest::no_fake', no_fake),
        ('eptest::scale_', scale_in_place),
        ('eptest::cat', lambda x, factors: rotate([x, factors.view(1, 8, 1, 1).expand_as(x)])),
    ],
)
def test_an_operation_without_a_rule_freezes_what_it_is_given(
    name: str, function: Callable[[Tensor, Tensor], Tensor | None]
) -> None:
    model = Scaled(function)
    if name == 'eptest::cat':
        model.last = nn.Conv2d(16, 4, 1)
    graph = easypruner.trace(model, IMAGES)
    assert not graph.groups
    reasons = {entry.reason for entry in graph.frozen if entry.param == 'first.weight'}
    assert (
        f'an operation without a rule: {name} in the model itself (see easypruner.graph.rule)'
    ) in reasons


@pytest.mark.parametrize(
    ('name', 'function'),
    [
        ('eptest::scale', scale),
        ('eptest::no_fake', no_fake),
        ('eptest::scale_', scale_in_place),
        ('eptest::scale', scale_in_place),
    ],
)
def test_with_a_rule_its_channels_are_a_group(
    name: str, function: Callable[[Tensor, Tensor], Tensor | None]
) -> None:
    rule(name)(couple_scale)
    model = Scaled(function)
    graph = easypruner.trace(model, IMAGES)
    assert members(model) == COUPLED
    assert graph.operands['factors'] == 'scale.factors'
    masks = {name: torch.arange(group.size) % 3 > 0 for name, group in graph.groups.items()}
    assert easypruner.verify(model, masks, IMAGES).error < 1e-12


def test_a_rule_works_on_stand_ins_beside_tensors_in_attributes() -> None:
    """A tensor in a plain attribute keeps a device of its own."""
    rule('eptest::scale')(couple_scale)
    shift = torch.rand(8, 1, 1)
    model = Scaled(lambda x, factors: scale(x, factors) + torch.stack([shift])[0, :, :1])
    assert not members(model)
    model = Scaled(lambda x, factors: scale(x, factors) + shift.sum())
    assert members(model) == COUPLED


def test_a_pointwise_operation_needs_no_rule() -> None:
    model = Scaled(lambda x, factors: torch.ops.eptest.half(x) * factors.view(-1, 1, 1))
    assert members(model) == COUPLED


def test_a_rule_for_aten_has_two_spellings() -> None:
    def forget(coupling: Coupling, operation: Operation) -> None:
        for tensor in operation.tensors:
            coupling.freeze_tensor(tensor, 'relu is forgotten')
        coupling.assign_constants(operation.outputs[0])

    def other(coupling: Coupling, operation: Operation) -> None:
        raise AssertionError

    with pytest.raises(PluginError, match="'relu'"):
        rule('aten::relu')(forget)
    rule('aten::relu', replace=True)(forget)
    assert not easypruner.trace(Scaled(lambda x, factors: x.relu()), IMAGES).groups
    with pytest.raises(PluginError, match=r'forget.*replace=True'):
        rule('relu')(other)


def test_two_rules_for_one_operation_are_refused_and_nothing_is_registered() -> None:
    def other(coupling: Coupling, operation: Operation) -> None:
        raise AssertionError

    rule('eptest::scale')(couple_scale)
    with pytest.raises(PluginError) as caught:
        rule('eptest::new', 'eptest::scale')(other)
    message = str(caught.value)
    assert f'{__name__}.couple_scale' in message
    assert f'{__name__}.test_two_rules' in message
    assert "'eptest::scale'" in message
    assert 'eptest::new' not in registration._RULES
    rule('eptest::scale')(couple_scale)
    rule('eptest::scale', replace=True)(other)
    assert registration._RULES['eptest::scale'] is other


@pytest.mark.parametrize('name', ['', 'my op', 'mylib::scale.default', '::scale', 'a::b::c', scale])
def test_what_names_no_operation_is_refused(name: object) -> None:
    with pytest.raises(PluginError, match='is not the name of an operation'):
        rule(name)


def test_a_rule_that_gives_an_output_no_axes_is_named() -> None:
    rule('eptest::scale')(lambda coupling, operation: None)
    with pytest.raises(TraceError, match=r'no axes by the rule of eptest::scale in the model'):
        easypruner.trace(Scaled(scale), IMAGES)


def test_a_rule_that_gives_an_output_other_sizes_is_named() -> None:
    @rule('eptest::scale')
    def swap(coupling: Coupling, operation: Operation) -> None:
        coupling.assign(operation.outputs[0], reversed(coupling.axes_of(operation.args[0])))

    expected = r'\(2, 8, 6, 6\) is given axes of sizes \[6, 6, 8, 2\] by the rule of eptest::scale'
    with pytest.raises(TraceError, match=expected):
        easypruner.trace(Scaled(scale), IMAGES)


def test_a_rule_that_couples_axes_of_different_sizes_is_named() -> None:
    @rule('eptest::scale')
    def mismatch(coupling: Coupling, operation: Operation) -> None:
        coupling.couple(*coupling.axes_of(operation.args[0])[:2])

    expected = r'sizes 2 and 8 are coupled by the rule of eptest::scale'
    with pytest.raises(TraceError, match=expected):
        easypruner.trace(Scaled(scale), IMAGES)


@pytest.mark.parametrize(
    ('mistake', 'words'),
    [
        (lambda c, o: c.couple_runs(c.axes_of(o.args[0])[1], 3), 'of size 8 has no 3 equal runs'),
        (lambda c, o: c.couple_runs(c.axes_of(o.args[0])[1], 0), 'of size 8 has no 0 equal runs'),
        (lambda c, o: c.couple_within(c.axes_of(o.args[0])[1], 3), 'no equal runs of 3 indices'),
        (lambda c, o: c.couple_within(c.axes_of(o.args[0])[1], 0), 'no equal runs of 0 indices'),
        (lambda c, o: c.axes_of(o.args[0])[1].transposed(5), 'of size 8 has no 5 equal runs'),
        (lambda c, o: c.assign(o.outputs[0], (2, 8, 6, 6)), "AttributeError: 'int' object has no"),
        (lambda c, o: c.axes_of(o.args[0])[4], 'IndexError: tuple index out of range'),
    ],
)
def test_a_rule_that_fails_is_named(
    mistake: Callable[[Coupling, Operation], object], words: str
) -> None:
    @rule('eptest::scale')
    def failing(coupling: Coupling, operation: Operation) -> None:
        mistake(coupling, operation)

    expected = f'the rule of eptest::scale in the model itself fails: .*{words}'
    with pytest.raises(TraceError, match=expected) as caught:
        easypruner.trace(Scaled(scale), IMAGES)
    assert isinstance(caught.value.__cause__, Exception)


@pytest.mark.parametrize(
    ('factor', 'axes', 'words'),
    [
        (0.5, (), 'the factor 0.5 by the rule of eptest::scale in the model itself'),
        (-1, (), 'the factor -1 by the rule of eptest::scale in the model itself'),
        (1, (6, 6), 'the axis 6 by the rule of eptest::scale in the model itself'),
    ],
)
def test_multiply_adds_that_cannot_be_counted_are_refused(
    factor: float, axes: tuple[int, ...], words: str
) -> None:
    @rule('eptest::scale')
    def counting(coupling: Coupling, operation: Operation) -> None:
        couple_scale(coupling, operation)
        coupling.add_macs(factor, *coupling.axes_of(operation.args[0]), *axes)

    with pytest.raises(TraceError, match=f'add_macs is given {words}; expected a whole number'):
        easypruner.trace(Scaled(scale), IMAGES)


def test_verify_says_that_a_pruned_network_does_not_fit_when_a_rule_forgets_a_coupling() -> None:
    """Only the pruned network fails, so neither its inputs nor double precision are to blame."""

    @rule('eptest::scale')
    def forgetful(coupling: Coupling, operation: Operation) -> None:
        coupling.assign(operation.outputs[0], coupling.axes_of(operation.args[0]))

    with pytest.raises(TraceError) as caught:
        easypruner.verify(Scaled(scale), {'first': torch.arange(8) > 2}, IMAGES)
    message = str(caught.value)
    assert message.startswith('the forward pass of the pruned Scaled fails, and that of the full')
    assert 'two widths that belong together were cut differently' in message
    assert 'double precision' not in message
