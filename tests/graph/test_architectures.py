"""Real architectures at full size: exact cuts at 30 % and 60 %, costs as torch counts them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import easypruner
from tests.networks import lively

TORCHVISION = (
    'resnet18', 'resnet50', 'vgg16_bn', 'mobilenet_v2', 'densenet121', 'resnext50_32x4d',
    'efficientnet_b0', 'inception_v3', 'googlenet', 'squeezenet1_0',
)  # fmt: skip
SAMPLE = ('resnet18', 'mobilenet_v2')


def build(name: str) -> Callable[[], nn.Module]:
    extra = {'init_weights': False} if name in ('inception_v3', 'googlenet') else {}
    return lambda: torchvision.models.get_model(name, weights=None, **extra)


@pytest.mark.parametrize('remove', [0.3, 0.6])
@pytest.mark.parametrize(
    'name',
    [
        name if name in SAMPLE else pytest.param(name, marks=pytest.mark.slow)
        for name in TORCHVISION
    ],
)
def test_random_masks_verify_and_costs_are_exact(name: str, remove: float) -> None:
    size = 299 if name == 'inception_v3' else 96
    inputs = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    model = lively(build(name), inputs)
    graph = easypruner.trace(model, inputs)
    generator = torch.Generator().manual_seed(2)
    masks = {}
    for group in graph.groups.values():
        masks[group.name] = torch.rand(group.size, generator=generator) >= remove
        masks[group.name][0] = True
    result = easypruner.verify(model, masks, inputs)
    assert result.error < 1e-5 and not result.unchecked
    predicted = graph.cost(masks)
    easypruner.prune(model, masks, graph=graph)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(inputs)
    assert 2 * predicted.macs == counter.get_total_flops()
    assert predicted.params == sum(parameter.numel() for parameter in model.parameters())
    assert model.training is False
