"""The 6n+2 ResNets, compared with the numbers in their paper."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import easypruner
from easypruner.models import ResNetCifar


def classifier(depth: int, shortcut: str) -> nn.Module:
    backbone = ResNetCifar(depth=depth, shortcut=shortcut)

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = backbone
            self.head = nn.Linear(64, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.backbone(x)[-1].mean((2, 3)))

    return Classifier()


@pytest.mark.parametrize(
    ('depth', 'millions', 'macs'),
    [(20, 0.27, 40.6e6), (32, 0.46, 68.9e6), (44, 0.66, 97.2e6), (56, 0.85, 125.5e6)],
)
def test_sizes_are_those_of_the_paper(depth: int, millions: float, macs: float) -> None:
    """Table 6 of He et al. has the parameters; the MACs are those of later papers."""
    model = classifier(depth, 'padding')
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.005)
    cost = easypruner.trace(model, torch.zeros(1, 3, 32, 32)).cost()
    assert cost.macs == pytest.approx(macs, rel=0.005)


@pytest.mark.parametrize('depth', [20, 56, 110])
@pytest.mark.parametrize('shortcut', ['padding', 'projection'])
def test_depth_counts_the_weighted_layers(depth: int, shortcut: str) -> None:
    model = classifier(depth, shortcut)
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    projections = [m for m in layers if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)]
    assert len(layers) - len(projections) == depth
    assert len(projections) == (2 if shortcut == 'projection' else 0)


def test_it_shrinks_maps_twice() -> None:
    (out,) = ResNetCifar(in_channels=1)(torch.zeros(2, 1, 16, 16))
    assert out.shape == (2, 64, 4, 4)


@pytest.mark.parametrize('shortcut', ['padding', 'projection'])
def test_it_can_be_pruned(shortcut: str) -> None:
    model = classifier(20, shortcut)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(2, 3, 32, 32, generator=generator)
    graph = easypruner.trace(model, inputs)
    masks = {}
    for name, group in graph.groups.items():
        masks[name] = torch.rand(group.size, generator=generator) < 0.5
        masks[name][0] = True
    assert {f'backbone.stages.{s}.{b}.conv1' for s in range(3) for b in range(3)} <= masks.keys()
    assert easypruner.verify(model, masks, inputs).passed


@pytest.mark.parametrize('wrong', [dict(depth=21), dict(depth=2), dict(shortcut='C')])
def test_wrong_arguments(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
        ResNetCifar(**wrong)
