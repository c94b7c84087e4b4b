"""The check of layer handlers accepts good handlers and reports the errors of bad ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from easypruner import LayerHandler
from easypruner.graph.cutting.handlers import ConvolutionHandler, PReLUHandler
from easypruner.testing import check_handler


class _Checked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.channels = 8
        self.scale = nn.Parameter(torch.rand(8))

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1] == self.channels
        return x * self.scale[:, None, None]


class _Handler(LayerHandler):
    handles = (_Checked,)

    def resize(self, layer: Any, shapes: Mapping[str, torch.Size]) -> None:
        layer.channels = shapes['scale'][0]


def test_a_handler_keeps_its_number() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), _Checked(), nn.Conv2d(8, 2, 1))
    modules: Any = check_handler(_Handler(), model, torch.rand(1, 3, 4, 4))
    assert modules['1'].channels == modules['0'].out_channels < 8


class _Empty(_Handler):
    def resize(self, layer: Any, shapes: Mapping[str, torch.Size]) -> None:
        pass


class _Partial(_Handler):
    """Sets only one of two numbers of a layer."""

    def resize(self, layer: Any, shapes: Mapping[str, torch.Size]) -> None:
        layer.channels = shapes['scale'][0]
        layer.name = 'cut'


class _Elsewhere(_Handler):
    handles = (nn.PReLU,)


class _Stumbling(_Handler):
    def resize(self, layer: Any, shapes: Mapping[str, torch.Size]) -> None:
        layer.channels = shapes['weight'][0]


class _Twice(_Checked):
    """Checks two numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 8

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.view(len(x), self.width, 4, 4))


class _Unread(_Checked):
    """Reads none of its numbers."""

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale[:, None, None]


@pytest.mark.parametrize(
    ('handler', 'layer', 'words'),
    [
        (_Empty, _Checked, r"_Empty leaves channels=8 in '1', a _Checked; expected \d"),
        (_Partial, _Twice, r"_Partial leaves width=8 in '1', a _Twice"),
        (_Elsewhere, _Checked, '_Elsewhere is not used, .* changes no layer of .*PReLU'),
        (_Empty, _Unread, r"_Empty changes nothing in \['1'\]"),
        (_Stumbling, _Checked, "no channel of this Sequential .*handler _Stumbling fails on '1'"),
    ],
)
def test_a_bad_handler_is_caught(
    handler: type[LayerHandler], layer: type[nn.Module], words: str
) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), layer(), nn.Conv2d(8, 2, 1))
    with pytest.raises(AssertionError, match=words):
        check_handler(handler(), model, torch.rand(1, 3, 4, 4))


def test_each_of_several_handlers_has_to_be_called() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), _Checked(), nn.PReLU(8), nn.Conv2d(8, 2, 1))
    check_handler([_Handler(), PReLUHandler()], model, torch.rand(1, 3, 4, 4))
    model = nn.Sequential(nn.Conv2d(3, 8, 1), _Checked(), nn.Conv2d(8, 2, 1))
    with pytest.raises(AssertionError, match='PReLUHandler is not used'):
        check_handler([_Handler(), PReLUHandler()], model, torch.rand(1, 3, 4, 4))


def test_groups_of_a_convolution_are_known_without_a_handler() -> None:
    convolutions = [nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 2, 1)]
    modules = check_handler(
        ConvolutionHandler(), nn.Sequential(*convolutions), torch.rand(1, 3, 4, 4)
    )
    assert modules['1'].groups == modules['1'].in_channels < 8


def test_a_network_that_cannot_be_cut_is_caught() -> None:
    with pytest.raises(AssertionError, match='no channel of this'):
        check_handler(_Handler(), nn.Sequential(nn.Conv2d(3, 2, 1)), torch.rand(1, 3, 4, 4))
