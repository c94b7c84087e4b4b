"""Forward passes that compute derivatives: what the derivative reads goes with the channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import easypruner
from easypruner.testing import randomized_network


def slope(body: nn.Module, x: Tensor) -> Tensor:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        return torch.autograd.grad(body(x).square().sum(), x, create_graph=True)[0]


def along(body: nn.Module, x: Tensor) -> Tensor:
    return torch.func.jvp(body, (x,), (torch.cos(x),))[1]


class Net(nn.Module):
    """Returns a derivative of its body."""

    def __init__(self, derive: Callable[..., Any], *layers: nn.Module) -> None:
        super().__init__()
        self.body, self.derive = nn.Sequential(*layers), derive

    def forward(self, x: Tensor) -> Any:
        return self.derive(self.body, x)


def between(norm: nn.Module, act: nn.Module) -> tuple[nn.Module, ...]:
    return nn.Conv2d(3, 8, 3), norm, act, nn.Conv2d(8, 4, 3, stride=2), nn.Sigmoid()


DERIVED = [
    lambda body, x: torch.vmap(body)(x[:, None]),
    lambda body, x: torch.func.grad(lambda part: body(part).square().mean())(x),
    slope,
    along,
]


@pytest.mark.parametrize('derive', DERIVED)
@pytest.mark.parametrize('act', [nn.ReLU(), nn.SiLU(), nn.Tanh(), nn.Hardswish(), nn.ELU()])
def test_channels_go_from_a_network_and_its_derivative(
    derive: Callable[..., Any], act: nn.Module
) -> None:
    net = Net(derive, *between(nn.BatchNorm2d(8), act)).eval()
    x = torch.randn(2, 3, 9, 9)
    graph = easypruner.trace(net, x)
    assert [group.size for name, group in graph.groups.items() if 'body.0' in name] == [8]
    masks = {name: torch.arange(group.size) % 3 > 0 for name, group in graph.groups.items()}
    assert not easypruner.verify(net, masks, x, graph=graph).failed
    expected = net(x).shape
    easypruner.prune(net, masks, graph=graph)
    assert net.body[0].out_channels == 5 and net(x).shape == expected


@pytest.mark.parametrize('norm', [nn.GroupNorm(2, 8), nn.GroupNorm(8, 8), nn.InstanceNorm2d(8)])
def test_norms_keep_what_they_keep_without_a_derivative(norm: nn.Module) -> None:
    x = torch.randn(2, 3, 9, 9)
    plain = nn.Sequential(*between(norm, nn.ReLU()))
    groups = easypruner.trace(plain, x).groups
    found = easypruner.trace(Net(slope, *between(norm, nn.ReLU())), x).groups
    assert found[next(n for n in found if 'body.0' in n)].size == groups['0'].size


@pytest.mark.parametrize('groups', [1, 8])
def test_the_slope_of_a_convolution_in_groups_goes_or_stays_with_a_reason(groups: int) -> None:
    inner = nn.Conv2d(8, 8, 3, groups=groups)
    net = randomized_network(
        lambda: Net(slope, nn.Conv2d(3, 8, 1), inner, nn.ConvTranspose2d(8, 6, 2), nn.ReLU())
    )
    x = torch.randn(1, 3, 6, 6)
    graph = easypruner.trace(net, x)
    masks = {name: torch.arange(group.size) > 0 for name, group in graph.groups.items()}
    assert easypruner.verify(net, masks, x, graph=graph).error < 1e-9
    assert sum(group.size for group in graph.groups.values()) == (22 if groups == 1 else 14)
    net.body[1] = nn.Conv2d(8, 8, 3, groups=2)
    reasons = {entry.reason for entry in easypruner.trace(net, x).frozen}
    assert any(text.startswith('the derivative of a grouped convolution') for text in reasons)
