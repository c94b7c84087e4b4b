"""The proof that no trial is needed: it fails for code that learns a width, in whatever way."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

import easypruner
from easypruner.graph.coupling.choice import PruningChoice
from easypruner.graph.coupling.propagate import propagate
from easypruner.graph.coupling.rules import registration
from easypruner.graph.coupling.rules.registration import Coupling, Operation
from easypruner.graph.cutting.handlers import LayerHandler, with_torch_layers
from easypruner.graph.recording.inventory import StandIns
from easypruner.graph.recording.tape import record
from easypruner.graph.trial.known_repairs import find_known_repairs
from easypruner.graph.trial.trial import Trial
from easypruner.testing import example_inputs, random_masks
from tests.helpers.networks import NETWORKS

_ROUNDS = 4


def make_trial(model: nn.Module, inputs: object, handlers: Sequence[LayerHandler] = ()) -> Trial:
    """Return the trial of a traced network."""
    stand_ins = StandIns(model)
    tape = record(stand_ins, inputs)
    choice = PruningChoice.of((), None, 'width', 'within', False, None)
    found = propagate(stand_ins, [tape], choice, {})
    return Trial(stand_ins, tape, found, with_torch_layers(handlers))


def is_proved(model: nn.Module, inputs: object, handlers: Sequence[LayerHandler] = ()) -> bool:
    """Return whether a network needs no trial. If so, check that none fails."""
    trial = make_trial(model, inputs, handlers)
    repairs = find_known_repairs(trial)
    if not trial.is_needless(repairs):
        return False
    for number in range(_ROUNDS):
        assert trial.run(trial.choose_widths(number), repairs) is None
    return True


class Plain(nn.Module):
    """Two convolutions, and what a test does between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1)
        self.norm, self.parts = nn.BatchNorm2d(8), nn.ModuleList([nn.ReLU()])
        self.scale, self.width, self.act = 0.5, 8, torch.relu

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.between(self.first(x)))

    def between(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = part(x)
        x = torch.cat([self.act(self.norm(x)) * self.scale, x], 1)[:, :] if self.training else x
        return functional.relu(x) + x.mean((2, 3), keepdim=True)


def between(function: Callable[[Plain, Tensor], Tensor]) -> nn.Module:
    """Return a network with a function of its own between the convolutions."""
    return type('Own', (Plain,), {'between': function})()


def describe(x: Tensor) -> str:
    """Return a text with the shape."""
    return '' if x.dim() == 4 else str(x.shape)


def of_shape(x: Tensor, compare: bool = False) -> Tensor:
    """Compare a width of a tensor, in a function."""
    return x * 2 if compare and x.shape[1] == 8 else x


def caught(self: Plain, x: Tensor) -> Tensor:
    """Add a constant if its width fits."""
    try:
        return x + torch.ones(1, 8, 1, 1)
    except RuntimeError:
        return x


def remembered(self: Plain, x: Tensor) -> Tensor:
    """Set an attribute, and read it."""
    self.seen = x
    return self.seen


LEARNING = {
    'shape': lambda self, x: x * 2 if x.shape[1] == 8 else x,
    'size': lambda self, x: x * 2 if x.size(1) == 8 else x,
    'length': lambda self, x: x * 2 if len(x[0]) == 8 else x,
    'count': lambda self, x: x * 2 if x.numel() == 512 else x,
    'text': lambda self, x: x * 2 if f'{x}' else x,
    'text by an operator': lambda self, x: x * 2 if '%s' % x else x,  # noqa: UP031
    'number of a layer': lambda self, x: x * 2 if self.first.out_channels == 8 else x,
    'number of a norm': lambda self, x: x * 2 if self.norm.num_features == 8 else x,
    'by name': lambda self, x: x * 2 if getattr(x, 'shape')[1] == 8 else x,  # noqa: B009
    'view': lambda self, x: x.view(1, 8, -1).view(1, 8, 8, 8),
    'own number': lambda self, x: x.reshape(1, self.width, 8, 8),
    'slice': lambda self, x: torch.cat([x[:, :3], x[:, 3:]], 1),
    'groups': lambda self, x: functional.conv2d(x, self.first.weight.mean(1, True), groups=8),
    'function': lambda self, x: of_shape(x, True),
    'another function': lambda self, x: x * 2 if describe(x) else x,
    'caught': caught,
    'attribute': remembered,
    'default': lambda self, x, scale=of_shape: scale(x, True),
    'list of sizes': lambda self, x: x * 2 if [*x.size()][1] == 8 else x,
    'empty tensor': lambda self, x: x + torch.zeros(8, 1, 1),
    'method of a class': lambda self, x: x * 2 if Tensor.size(x, 1) == 8 else x,
    'loop': lambda self, x: torch.cat([part[None] for part in x], 0),
}


@pytest.mark.parametrize('kind', LEARNING)
def test_code_that_may_learn_a_width_is_not_proved(kind: str) -> None:
    assert is_proved(between(Plain.between), example_inputs(1))
    assert not is_proved(between(LEARNING[kind]), example_inputs(1))


class Item(nn.ModuleList):
    """Learns a width when it is indexed."""

    def __getitem__(self, index: int) -> nn.Module:
        return nn.Identity() if self[0].out_channels == 8 else self[1]


class Called(nn.ReLU):
    """Learns a width when it is called."""

    def __call__(self, x: Tensor) -> Tensor:
        return x * x.shape[1]


class Replaced(nn.Conv2d):
    """Replaces a part of the forward pass of its base."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(x, weight, bias) * weight.shape[0]


class Norm(nn.BatchNorm2d):
    """Learns a width by a number that a cut sets."""

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        return x * 2 if self.num_features == 8 else x


class Wide(nn.Linear):
    """Learns a width by a number that a cut sets."""

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        return x * 2 if self.out_features == 8 else x


class LastNorm(nn.Module):
    """Normalizes channels without a weight, so that no handler sets the shape."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8, elementwise_affine=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Property(nn.Module):
    """Learns a width by a property."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 1)

    @property
    def wide(self) -> bool:
        return self.conv.weight.shape[0] == 8

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) if self.wide else x


def hooked() -> nn.Module:
    """Return a network with a hook."""
    model = Plain()
    model.norm.register_forward_hook(lambda module, args, output: output * args[0].shape[1])
    return model


def own_forward() -> nn.Module:
    """Return a network of which an instance has a forward of its own."""
    model = Plain()
    model.norm.forward = lambda x: x * x.shape[1]  # type: ignore[method-assign]
    return model


def replaced(name: str, part: nn.Module) -> nn.Module:
    """Return a network with another part."""
    model = Plain()
    setattr(model, name, part)
    return model


OTHERS = {
    'index': lambda: replaced('parts', Item([nn.Conv2d(8, 8, 1), nn.ReLU()])),
    'call': lambda: replaced('norm', Called()),
    'part of a layer': lambda: replaced('first', Replaced(3, 8, 3, padding=1)),
    'number of a norm': lambda: nn.Sequential(nn.Conv2d(3, 8, 1), Norm(8), nn.Conv2d(8, 4, 1)),
    'number of a linear layer': lambda: nn.Sequential(Wide(8, 8), nn.Linear(8, 4)),
    'norm without a weight': lambda: nn.Sequential(
        nn.Conv2d(3, 8, 1), LastNorm(), nn.Conv2d(8, 4, 1)
    ),
    'property': Property,
    'hook': hooked,
    'forward of an instance': own_forward,
    'another layer': lambda: replaced('norm', nn.GroupNorm(4, 8)),
    'function in an attribute': lambda: replaced('act', of_shape),
}


@pytest.mark.parametrize('kind', OTHERS)
def test_modules_that_may_learn_a_width_are_not_proved(kind: str) -> None:
    assert not is_proved(OTHERS[kind](), example_inputs(1))


def test_a_handler_of_the_user_may_change_any_number() -> None:
    class Own(LayerHandler):
        handles = (Plain,)

        def resize(self, layer: nn.Module, shapes: object) -> None:
            layer.training = True

    assert not is_proved(Plain(), example_inputs(1), [Own()])
    Own.handles = (nn.ReLU,)
    assert not is_proved(Plain(), example_inputs(1), [Own()])


def test_a_rule_of_the_user_may_be_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def cat(coupling: Coupling, operation: Operation) -> None:
        coupling.assign_constants(operation.output)

    model = nn.Sequential(Join('cat', *(nn.Conv2d(3, 4, 1) for _ in range(2))), nn.Conv2d(8, 4, 1))
    assert is_proved(model, example_inputs(1))
    monkeypatch.setitem(registration._RULES, 'cat', cat)
    assert not make_trial(model, example_inputs(1)).is_needless({})


@pytest.mark.parametrize('build', NETWORKS, ids=lambda build: build.__name__)
def test_a_proved_network_passes_trials(build: Callable[[], nn.Module]) -> None:
    model = build().eval()
    is_proved(model, getattr(model, 'example_inputs', example_inputs()))


@pytest.mark.slow
@pytest.mark.parametrize(
    'name', ['mobilenet_v3_small', 'regnet_y_400mf', 'resnext50_32x4d', 'inception_v3']
)
def test_networks_of_torchvision_are_proved(name: str) -> None:
    options = {'init_weights': False} if name == 'inception_v3' else {}
    assert is_proved(
        torchvision.models.get_model(name, **options).eval(), torch.rand(1, 3, 224, 224)
    )


class Join(nn.Module):
    """Joins what two branches make of a map."""

    def __init__(self, kind: str, one: nn.Module, two: nn.Module) -> None:
        super().__init__()
        self.kind, self.one, self.two = kind, one, two

    def forward(self, x: Tensor) -> Tensor:
        one, two = self.one(x), self.two(x)
        if self.kind == 'add':
            one += two
            return one
        return one * torch.sigmoid(two) if self.kind == 'gate' else torch.cat([two, one], 1)


class Tokens(nn.Module):
    """Works on the channels as the last dimension."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.norm, self.act = nn.LayerNorm(channels), functional.gelu
        self.into, self.out = nn.Linear(channels, 2 * width), nn.Linear(2 * width, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.out(self.act(self.into(self.norm(x.permute(0, 2, 3, 1))))).permute(
            0, 3, 1, 2
        )


@st.composite
def branches(draw: st.DrawFn, channels: int, made: int, depth: int) -> nn.Module:
    """Draw a network from ``channels`` to ``made`` channels, with blocks in blocks."""
    kind = draw(st.sampled_from(['conv', 'grouped', 'tokens', 'add', 'gate', 'cat', 'pooled']))
    width = draw(st.sampled_from([4, 6, 8]))
    if kind == 'grouped':
        groups = draw(st.sampled_from([2, width]))
        middle = [nn.Conv2d(width, width, 3, padding=1, groups=groups), nn.BatchNorm2d(width)]
        return nn.Sequential(nn.Conv2d(channels, width, 1), *middle, nn.Conv2d(width, made, 1))
    if kind == 'tokens':
        return nn.Sequential(Tokens(channels, width), nn.Conv2d(channels, made, 1))
    if kind == 'pooled':
        layers = nn.Conv2d(channels, width, 1), nn.MaxPool2d(3, 1, 1), nn.ReLU6()
        return nn.Sequential(*layers, nn.Conv2d(width, made, 1))
    if kind == 'conv' or depth == 0:
        return nn.Sequential(nn.Conv2d(channels, made, 3, padding=1), nn.BatchNorm2d(made))
    parts = [draw(branches(channels, width, depth - 1)) for _ in range(2)]
    joined = 2 * width if kind == 'cat' else width
    return nn.Sequential(Join(kind, *parts), nn.SiLU(), nn.Conv2d(joined, made, 1))


@st.composite
def plain_networks(draw: st.DrawFn) -> nn.Module:
    """Draw a network of which a proof is expected."""
    torch.manual_seed(0)
    body = draw(branches(3, 8, 3))
    return nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).eval()


def check_plain(model: nn.Module) -> None:
    """Check that a network is proved, and that trials and a cut agree."""
    inputs = example_inputs()
    assert is_proved(model, inputs)
    graph = easypruner.trace(model, inputs)
    masks = random_masks(graph)
    assert easypruner.verify(model, masks, inputs, graph=graph).passed
    easypruner.prune(model, masks, graph=graph)
    model(inputs)


@settings(max_examples=2, deadline=None, derandomize=True)
@given(plain_networks())
def test_a_plain_random_network_is_proved_and_cut_right(model: nn.Module) -> None:
    check_plain(model)


@pytest.mark.slow
@settings(max_examples=300, deadline=None, derandomize=True)
@given(plain_networks())
def test_many_plain_random_networks_are_proved_and_cut_right(model: nn.Module) -> None:
    check_plain(model)
