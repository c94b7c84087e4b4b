"""Kernels that a pass computes: of several parameters, for each image, or of other images."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import easypruner
from easypruner.testing import check_rule, randomized_network


class PerImage(nn.Module):
    """A convolution whose kernel is a sum of several, with weights that depend on the image."""

    def __init__(self, inputs: int, outputs: int, kernels: int = 3) -> None:
        super().__init__()
        self.inputs, self.outputs, self.kernels = inputs, outputs, kernels
        self.weight = nn.Parameter(torch.randn(kernels, outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.randn(kernels, outputs))
        self.gate = nn.Linear(inputs, kernels)

    def forward(self, x: Tensor) -> Tensor:
        count, _, height, width = x.shape
        gate = self.gate(x.mean((2, 3))).sigmoid()
        weight = (gate @ self.weight.view(self.kernels, -1)).view(
            count * self.outputs, self.inputs, 3, 3
        )
        bias, images = (gate @ self.bias).view(-1), x.reshape(1, -1, height, width)
        y = functional.conv2d(images, weight, bias, padding=1, groups=count)
        return y.view(count, self.outputs, height, width)


@pytest.mark.parametrize(('inner', 'outer'), [(8, 12), (8, 8)])
def test_kernels_of_one_parameter_for_each_image_lose_channels_on_both_sides(
    inner: int, outer: int
) -> None:
    model = randomized_network(
        lambda: nn.Sequential(
            nn.Conv2d(3, inner, 3), PerImage(inner, outer), nn.Conv2d(outer, 2, 1)
        )
    )
    graph = easypruner.trace(model, torch.randn(2, 3, 8, 8))
    roles = {(m.param, m.dim): m.role for g in graph.groups.values() for m in g.members}
    assert (roles['1.weight', 1], roles['1.weight', 2]) == ('out', 'in')
    assert sorted(group.size for group in graph.groups.values()) == [3, inner, outer]
    assert not any(group.mixed for group in graph.groups.values())
    check_rule(model, torch.randn(2, 3, 8, 8))


class Template(nn.Module):
    """Searches each image for a template: their features are correlated, one image with one.

    Args:
        depthwise: whether each channel is correlated alone.
    """

    def __init__(self, depthwise: bool) -> None:
        super().__init__()
        self.depthwise = depthwise
        self.first = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU())
        self.template, self.image = nn.Conv2d(6, 8, 3), nn.Conv2d(6, 8, 3)
        self.last = nn.Conv2d(8 if depthwise else 1, 2, 1)

    def forward(self, template: Tensor, x: Tensor) -> Tensor:
        kernel, x = self.template(self.first(template)), self.image(self.first(x))
        (count, channels), images = kernel.shape[:2], x.reshape(1, -1, *x.shape[2:])
        if self.depthwise:
            kernel = kernel.view(count * channels, 1, *kernel.shape[2:])
            y = functional.conv2d(images, kernel, groups=len(kernel))
            return self.last(y.view(count, channels, *y.shape[2:]))
        return self.last(functional.conv2d(images, kernel, groups=count).transpose(0, 1))


@pytest.mark.parametrize('depthwise', [True, False])
def test_a_template_and_an_image_lose_the_same_channels(depthwise: bool) -> None:
    model = randomized_network(lambda: Template(depthwise))
    inputs = torch.randn(2, 3, 7, 7), torch.randn(2, 3, 9, 9)
    graph = easypruner.trace(model, inputs)
    (features,) = (group for group in graph.groups.values() if group.size == 8)
    assert {m.param for m in features.members} >= {'template.weight', 'image.weight'}
    # A sum over products of two images says nothing about a weight that reads channels.
    assert bool(features.mixed) is not depthwise
    check_rule(model, inputs)


@pytest.mark.parametrize('kind', [nn.Conv2d, nn.ConvTranspose2d])
def test_groups_that_inputs_fix_lose_the_same_channels_of_each(kind: type[nn.Conv2d]) -> None:
    model = randomized_network(
        lambda: nn.Sequential(kind(3, 12, 3, groups=3), nn.ReLU(), nn.Conv2d(12, 2, 1))
    )
    graph = easypruner.trace(model, torch.randn(1, 3, 8, 8))
    (group,) = graph.groups.values()
    assert group.size == 4
    check_rule(model, torch.randn(1, 3, 8, 8))


def low_rank(net: Computed) -> Tensor:
    return net.one + net.left @ net.right


COMPUTED: dict[str, Callable[[Computed], Tensor]] = {
    'a sum': lambda net: net.one + net.two,
    'a low-rank sum': low_rank,
    'one behind the other': lambda net: torch.cat([net.one[:2], net.two]),
    'a stack': lambda net: torch.stack([net.one, net.two, net.one]).mean(0),
}


class Computed(nn.Module):
    """A layer whose weight is computed from several parameters."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.first = kind, nn.Linear(5, 8)
        self.one, self.two = (nn.Parameter(torch.randn(6, 8)) for _ in range(2))
        self.left, self.right = nn.Parameter(torch.randn(6, 2)), nn.Parameter(torch.randn(2, 8))

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(self.first(x).sigmoid(), COMPUTED[self.kind](self)).sum(-1)


@pytest.mark.parametrize('kind', COMPUTED)
def test_all_parameters_of_a_computed_weight_read_channels(kind: str) -> None:
    model, x = randomized_network(lambda: Computed(kind)), torch.randn(3, 5)
    graph = easypruner.trace(model, x)
    roles = {(m.param, m.dim): m.role for m in graph.groups['first'].members}
    assert {role for (param, _), role in roles.items() if not param.startswith('first')} == {'in'}
    masks = {'first': torch.arange(8) % 3 > 0}
    assert easypruner.verify(model, masks, x, graph=graph).passed


class SharedSums(nn.Module):
    """One parameter reads channels, another is added to it, and to a third that reads none."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 8)
        self.read, self.shared, self.other = (nn.Parameter(torch.randn(6, 8)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        scale = (self.shared + self.read).square().sum() + (self.shared + self.other).square().sum()
        return scale * functional.linear(self.first(x), self.read)


def test_what_reads_channels_is_found_through_several_sums() -> None:
    model, x = randomized_network(SharedSums), torch.randn(3, 5)
    graph = easypruner.trace(model, x)
    roles = {(m.param, m.dim): m.role for m in graph.groups['first'].members}
    assert {roles[name, 1] for name in ('read', 'shared', 'other')} == {'in'}


class Involution(nn.Module):
    """Multiplies windows with kernels of the position, each for several channels."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.groups, self.width = groups, channels // groups
        self.reduce, self.kernel = nn.Conv2d(channels, 6, 1), nn.Conv2d(6, 9 * groups, 1)

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.kernel(self.reduce(x).relu())
        count, _, height, width = kernel.shape
        kernel = kernel.view(count, self.groups, 1, 9, height, width)
        windows = functional.unfold(x, 3, padding=1)
        windows = windows.view(count, self.groups, self.width, 9, height, width)
        return (kernel * windows).sum(3).view(count, -1, height, width)


@pytest.mark.parametrize(('channels', 'groups'), [(16, 4), (32, 2)])
def test_an_involution_loses_channels_within_its_groups(channels: int, groups: int) -> None:
    model = randomized_network(
        lambda: nn.Sequential(
            nn.Conv2d(3, channels, 3), Involution(channels, groups), nn.Conv2d(channels, 2, 1)
        )
    )
    x = torch.randn(2, 3, 8, 8)
    graph = easypruner.trace(model, x)
    assert {name: group.size for name, group in graph.groups.items()} == {
        '0': channels // groups, '1.reduce': 6,
    }  # fmt: skip
    check_rule(model, x)
