"""Real architectures at full size: exact cuts at 30 % and 60 %, costs as torch counts them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from easypruner_plugins.bn_scale import BNScale
from easypruner_plugins.lp_norm import L1Norm
from easypruner_plugins.mask_file import MaskFile
from easypruner_plugins.random_source import Random
from easypruner_plugins.ratio import Ratio
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import easypruner
from easypruner.errors import EasyPrunerError
from easypruner.testing import randomized_network

TORCHVISION = (
    'resnet18', 'resnet50', 'vgg16_bn', 'mobilenet_v2', 'densenet121', 'resnext50_32x4d',
    'efficientnet_b0', 'inception_v3', 'googlenet', 'squeezenet1_0',
)  # fmt: skip
SAMPLE = (('resnet18', 0.6), ('mobilenet_v2', 0.3))


def build(name: str) -> Callable[[], nn.Module]:
    extra = {'init_weights': False} if name in ('inception_v3', 'googlenet') else {}
    return lambda: torchvision.models.get_model(name, weights=None, **extra)


@pytest.mark.parametrize(
    ('name', 'remove'),
    [
        pytest.param(name, remove, marks=[] if (name, remove) in SAMPLE else pytest.mark.slow)
        for name in TORCHVISION
        for remove in (0.3, 0.6)
    ],
)
def test_random_masks_verify_and_costs_are_exact(name: str, remove: float) -> None:
    size = 299 if name == 'inception_v3' else 96
    inputs = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    model = randomized_network(build(name), inputs)
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


def resnet_cifar(depth: int) -> nn.Module:
    """Return a CIFAR ResNet with a classifier, as its configs put it together."""
    from easypruner.models import ResNetCifar

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone, self.head = ResNetCifar(depth), nn.Linear(64, 10)
            self.backbone.init_weights()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.backbone(x)[0].mean((2, 3)))

    return Classifier()


def selected(
    graph: easypruner.graph.ChannelGraph, source: str, keep: float, folder: Path
) -> easypruner.Masks:
    """Let a source choose masks; MaskFile reads what Random chose."""
    chosen = SOURCES.get(source, Random)(Ratio(keep)).select(graph, easypruner.Context(seed=3))
    if source != 'MaskFile':
        return chosen
    chosen.save(folder / 'masks.safetensors')
    return MaskFile(str(folder / 'masks.safetensors')).select(graph, easypruner.Context())


SOURCES = {'BNScale': BNScale, 'L1Norm': L1Norm, 'Random': Random}


@pytest.mark.parametrize('keep', [0.7, 0.4])
@pytest.mark.parametrize('source', [*SOURCES, 'MaskFile'])
@pytest.mark.parametrize(
    'name',
    [
        'resnet20_cifar',
        *(pytest.param(name, marks=pytest.mark.slow) for name in ('resnet56_cifar', *TORCHVISION)),
    ],
)
def test_masks_of_every_source_verify(name: str, source: str, keep: float, tmp_path: Path) -> None:
    size = {'inception_v3': 299}.get(name, 32 if name.endswith('cifar') else 96)
    inputs = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    depth = re.fullmatch(r'resnet(\d+)_cifar', name)
    model = randomized_network(
        (lambda: resnet_cifar(int(depth[1]))) if depth else build(name), inputs
    )
    graph = easypruner.trace(model, inputs)
    if source == 'BNScale' and not any(isinstance(m, nn.BatchNorm2d) for m in model.modules()):
        with pytest.raises(EasyPrunerError, match='L1Norm'):
            selected(graph, source, keep, tmp_path)
        return
    masks = selected(graph, source, keep, tmp_path)
    result = easypruner.verify(model, masks, inputs)
    assert result.error < 1e-5 and not result.unchecked
    assert result.removed_units == masks.removed_units > 0
