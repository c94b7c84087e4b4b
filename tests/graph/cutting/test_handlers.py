"""Layer handlers: the names by which they find layers, and the message about a failing one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import easypruner
from easypruner import LayerHandler
from easypruner.errors import EasyPrunerError, PluginError
from easypruner.graph.cutting.handles import find_handler


class Handler(LayerHandler):
    """Records its calls."""

    def __init__(self, *handles: Any) -> None:
        self.handles = handles  # type: ignore[misc]

    def resize(self, layer: Any, shapes: Mapping[str, torch.Size]) -> None:
        layer.seen = dict(shapes)


@pytest.mark.parametrize(
    ('name', 'found'),
    [
        ('torch.nn.modules.activation.PReLU', True),
        ('torch.nn.PReLU', True),
        ('torch.nn.PRelu', False),
        ('torch.nn.functional', False),
        ('torch.nn.modules.Module', True),
        ('no.such.package.PReLU', False),
    ],
)
def test_a_full_name_may_be_the_one_that_a_library_shows(name: str, found: bool) -> None:
    handler = Handler(name)
    assert find_handler(nn.PReLU(), [handler]) is (handler if found else None)


class Checked(nn.Module):
    """A layer that checks the width of what it reads."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.scale = nn.Parameter(torch.rand(channels))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] != self.channels:
            raise ValueError('another width')
        return x * self.scale[:, None, None]


class Failing(Handler):
    """Reads a tensor that its layer does not have."""

    def resize(self, layer: Any, shapes: Mapping[str, torch.Size]) -> None:
        layer.channels = shapes['weight'][0]


def checked() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 1), Checked(8), nn.Conv2d(8, 2, 1))


EXAMPLE = torch.zeros(1, 3, 4, 4)


def test_the_reason_for_frozen_channels_names_a_failing_handler() -> None:
    graph = easypruner.trace(checked(), EXAMPLE, handlers=[Failing(Checked)])
    assert not graph.groups
    reasons = {frozen.reason for frozen in graph.frozen}
    expected = (
        "the layer handler Failing fails on '1', a Checked: KeyError: 'weight' (test_handlers"
    )
    assert any(expected in reason for reason in reasons)


def test_a_handler_that_fails_at_the_cut_leaves_all_as_it_was() -> None:
    model = checked()
    graph = easypruner.trace(model, EXAMPLE)
    masks = {name: torch.arange(group.size) > 3 for name, group in graph.groups.items()}
    graph.handlers = (Failing(Checked), *graph.handlers)
    with pytest.raises(PluginError, match='handler Failing fails on '):
        easypruner.prune(model, masks, graph=graph)
    assert model(EXAMPLE).shape == (1, 2, 4, 4)


def test_a_refusal_of_a_handler_keeps_its_own_message() -> None:
    class Refusing(Handler):
        def resize(self, layer: Any, shapes: Mapping[str, torch.Size]) -> None:
            raise EasyPrunerError('three heads at the least')

    graph = easypruner.trace(checked(), EXAMPLE, handlers=[Refusing(Checked)])
    assert any('three heads at the least' in frozen.reason for frozen in graph.frozen)


@pytest.mark.parametrize('handles', [(), ('Checked',), (3,)])
def test_handles_of_a_callers_own_handlers_are_checked_too(handles: tuple[Any, ...]) -> None:
    with pytest.raises(PluginError, match="layer handler 'Handler' handles"):
        easypruner.trace(checked(), EXAMPLE, handlers=[Handler(*handles)])


class Split(nn.Module):
    """Splits its input at a width that only its method for exports reads."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 6
        self.first = nn.Sequential(nn.Conv2d(3, 12, 1), nn.ReLU())
        self.last = nn.Conv2d(12, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.first(x).chunk(2, 1)
        return self.last(torch.cat([a, b], 1))

    def forward_export(self, x: Tensor) -> Tensor:
        return self.last(torch.cat(self.first(x).split((self.width, self.width), 1), 1))


class OfSplit(LayerHandler):
    """Sets the width of a Split."""

    handles = (Split,)
    inner = True

    def resize(self, layer: Any, shapes: Mapping[str, torch.Size]) -> None:
        if 'first.0.weight' in shapes:
            layer.width = shapes['first.0.weight'][0] // 2
            assert layer.first[0].out_channels == 2 * layer.width  # parts come before


def test_a_number_that_another_method_reads_follows_the_widths_of_parts() -> None:
    net, x = nn.Sequential(Split(), nn.Conv2d(4, 2, 1)), torch.randn(1, 3, 4, 4)
    graph = easypruner.trace(net, x, [OfSplit()])
    masks = {name: torch.arange(group.size) > 1 for name, group in graph.groups.items()}
    record = easypruner.prune(net, masks, graph=graph)
    block = net[0]
    assert block.width == 4
    torch.testing.assert_close(block.forward_export(x), block(x))
    rebuilt = easypruner.load_pruned(
        lambda: nn.Sequential(Split(), nn.Conv2d(4, 2, 1)),
        net.state_dict(),
        record,
        handlers=[OfSplit()],
    )
    assert rebuilt[0].width == 4


def test_a_handler_of_the_network_says_which_outputs_count() -> None:
    class WithFeatures(Split):
        def forward(self, x: Tensor) -> Any:
            found = self.first(x)
            return {'scores': self.last(found), 'features': found}

    class OfNetwork(Handler):
        def counted(self, output: Any) -> Any:
            return output['scores']

    net, x = WithFeatures(), torch.randn(1, 3, 4, 4)
    assert list(easypruner.trace(net, x, [OfNetwork(WithFeatures)]).groups) == ['first.0']
    assert not easypruner.trace(net, x).groups
    assert not easypruner.trace(net, x, [OfNetwork(WithFeatures)], outputs='*').groups
    masks = {'first.0': torch.arange(12) > 3}
    assert easypruner.verify(net, masks, x, [OfNetwork(WithFeatures)]).passed
