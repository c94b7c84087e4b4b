"""What a module's train() computes from its weights, or forgets, is renewed by a cut."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import easypruner
from easypruner.testing import randomized_network

WIDTH = 6


class Forgetting(nn.Module):
    """Keeps the scale that it computes in evaluation, until it is put in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(WIDTH))
        self.kept: dict[str, Tensor] = {}

    def train(self, mode: bool = True) -> Forgetting:
        super().train(mode)
        if mode and self.kept:
            self.kept = {}
        return self

    def find(self) -> Tensor:
        if self.training:
            return self.scale.exp()
        if 'scale' not in self.kept:
            self.kept['scale'] = self.scale.exp().detach()
        return self.kept['scale']

    def forward(self, x: Tensor) -> Tensor:
        return x * self.find()


class Computing(nn.Module):
    """Computes its scale when it is put in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.drop = nn.Parameter(torch.randn(WIDTH)), nn.Dropout(0.5)

    def train(self, mode: bool = True) -> Computing:
        super().train(mode)
        if mode and hasattr(self, 'kept'):
            del self.kept
        elif not mode:
            self.kept = self.scale.exp().detach()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return x * (self.scale.exp() if self.training else self.kept)


@pytest.mark.parametrize('mode', [False, True])
@pytest.mark.parametrize('kind', [Forgetting, Computing])
def test_values_that_were_kept_have_the_new_widths(kind: type[nn.Module], mode: bool) -> None:
    def build() -> nn.Sequential:
        return nn.Sequential(nn.Linear(3, WIDTH), kind(), nn.Linear(WIDTH, 2))

    model, whole, x = randomized_network(build), randomized_network(build), torch.randn(4, 3)
    graph = easypruner.trace(model.train(), x)
    model.eval()(x)
    model.train(mode)
    if kind is Computing:
        model[1].drop.eval()
    modes = [module.training for module in model.modules()]
    (name,) = graph.groups
    mask = torch.arange(WIDTH) != 2
    easypruner.prune(model, {name: mask}, graph=graph)
    assert [module.training for module in model.modules()] == modes
    with torch.no_grad():
        whole[2].weight[:, ~mask] = 0
    if mode:
        model.eval()
    assert torch.allclose(model(x), whole.eval()(x), atol=1e-6)
    assert easypruner.verify(model, {}, x).passed
