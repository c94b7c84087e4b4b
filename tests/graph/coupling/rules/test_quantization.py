"""Rules for fake quantization: per tensor, per channel, with learned scales."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization import (
    FakeQuantize,
    FusedMovingAvgObsFakeQuantize,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    default_fused_per_channel_wt_fake_quant,
)
from torch.ao.quantization._learnable_fake_quantize import _LearnableFakeQuantize
from torch.nn import functional

import easypruner
from easypruner.testing import check_rule, randomized_network

PER_TENSOR = dict(observer=MovingAverageMinMaxObserver, quant_min=0, quant_max=255)
PER_CHANNEL = dict(
    observer=MovingAveragePerChannelMinMaxObserver,
    quant_min=-128,
    quant_max=127,
    dtype=torch.qint8,
    qscheme=torch.per_channel_symmetric,
)


class Quantized(nn.Module):
    """The weight, or the output, of a convolution is quantized."""

    def __init__(self, quantizer: nn.Module, of_weight: bool) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)
        self.quantizer, self.of_weight = quantizer, of_weight
        with torch.no_grad():
            quantizer(self.a.weight if of_weight else torch.rand(1, 8, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.quantizer(self.a.weight) if self.of_weight else self.a.weight
        x = functional.conv2d(x, weight, self.a.bias).sigmoid()
        return self.b(x if self.of_weight else self.quantizer(x))


def learned(channels: int) -> nn.Module:
    quantizer = _LearnableFakeQuantize(
        **(PER_TENSOR if channels < 0 else PER_CHANNEL), channel_len=channels
    )
    quantizer.toggle_observer_update(False)
    with torch.no_grad():
        quantizer.scale.fill_(0.01)
    return quantizer


CASES = {
    'per tensor': (lambda: FakeQuantize(**PER_TENSOR), False),
    'per channel': (lambda: FakeQuantize(**PER_CHANNEL), True),
    'learned per tensor': (lambda: learned(-1), False),
    'learned per channel': (lambda: learned(8), True),
    'fused per tensor': (lambda: FusedMovingAvgObsFakeQuantize(**PER_TENSOR), False),
    'fused per channel': (default_fused_per_channel_wt_fake_quant, True),
}


@pytest.mark.parametrize('name', CASES)
def test_scales_and_zero_points_go_with_their_channels(name: str) -> None:
    build, of_weight = CASES[name]
    model = randomized_network(lambda: Quantized(build(), of_weight))
    if hasattr(model.quantizer, 'disable_observer'):
        model.quantizer.disable_observer()
    images = torch.rand(2, 3, 6, 6)
    graph = easypruner.trace(model, images)
    assert [group.size for group in graph.groups.values()] == [8]
    if 'fused' not in name:
        check_rule(model, images)
    easypruner.prune(model, dict.fromkeys(graph.groups, torch.arange(8) < 5), graph=graph)
    assert model(images).shape == (2, 4, 4, 4)
    assert model.quantizer.scale.numel() == (5 if 'per channel' in name else 1)


def test_a_cut_leaves_an_observer_that_goes_on_measuring() -> None:
    model = randomized_network(lambda: Quantized(FakeQuantize(**PER_CHANNEL), True))
    images = torch.rand(2, 3, 6, 6)
    graph = easypruner.trace(model, images)
    easypruner.prune(model, {'a': torch.arange(8) < 5}, graph=graph)
    assert model(images).shape == (2, 4, 4, 4)
    assert model.quantizer.zero_point.shape == model.quantizer.scale.shape == (5,)
