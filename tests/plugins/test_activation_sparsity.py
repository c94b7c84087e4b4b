"""ActivationSparsity in a plain training loop: its push, and no remaining hooks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from easypruner_plugins.activation_sparsity import ActivationSparsity
from torch import Tensor, nn

import easypruner
from easypruner import Masks, Progress
from easypruner.errors import ConfigError
from easypruner.graph import ChannelGraph
from easypruner.testing import check_forward_penalty, network

UPDATES = 30


class Net(nn.Module):
    """Two layers that read the output of a ReLU, and a classifier that reads their mean."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.second = nn.Conv2d(6, 4, 3, padding=1)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.middle(x).mean((2, 3)))

    def middle(self, x: Tensor) -> Tensor:
        return self.second(self.inner(x)).relu()

    def inner(self, x: Tensor) -> Tensor:
        return self.norm(self.first(x)).relu()


def traced() -> tuple[Net, ChannelGraph, Tensor]:
    torch.manual_seed(0)
    net, images = Net(), torch.rand(8, 3, 5, 5)
    return net, easypruner.trace(net, images), images


def by_hand(net: Net, images: Tensor, keep: Tensor | None = None) -> Tensor:
    channels = net.inner(images).mean((0, 2, 3))
    if keep is not None:
        channels = channels[~keep]
    return channels.sum() + (net.middle(images).mean((0, 2, 3)).sum() if keep is None else 0)


@pytest.mark.parametrize('only_removed', [False, True])
def test_the_penalty_is_the_formula(only_removed: bool) -> None:
    def formula(graph: ChannelGraph, masks: Masks | None, inputs: Tensor) -> Tensor:
        plain: Any = graph.model
        first = plain.body[0](inputs)
        second = plain.body[2](plain.body[1](first))
        means = {'body.0.0': first.mean((0, 2, 3)), 'body.1.0': second.mean((0, 2, 3))}
        pushed = {name: masks is None or not only_removed or ~masks[name] for name in means}
        return 0.5 * torch.stack([mean[pushed[name]].sum() for name, mean in means.items()]).sum()

    check_forward_penalty(ActivationSparsity(0.5, only_removed), formula, network('plain'))


def test_schedules_and_groups_have_their_factors() -> None:
    net, graph, images = traced()
    regularizer = ActivationSparsity(
        0.5, strength_schedule='linear', group_strengths={'first': 3.0, '*': 0.0}
    )
    with regularizer.watching(graph, None):
        net(images)
        penalty = regularizer.forward_penalty(Progress(1, 4))
    expected = 0.5 * 0.25 * 3.0 * net.inner(images).mean((0, 2, 3)).sum()
    torch.testing.assert_close(penalty, expected)


@pytest.mark.parametrize('disturb', [lambda net, x: None, lambda net, x: net.eval()(x)])
def test_passes_without_gradients_do_not_count(
    disturb: Callable[[Net, Tensor], object],
) -> None:
    net, graph, images = traced()
    expected = by_hand(net, images)
    regularizer = ActivationSparsity(1.0)
    with regularizer.watching(graph, None):
        with torch.no_grad():
            disturb(net, images + 1)
        assert regularizer.forward_penalty(Progress(0, 1)) is None
        net.train()(images)
        torch.testing.assert_close(regularizer.forward_penalty(Progress(0, 1)), expected)
        assert regularizer.forward_penalty(Progress(0, 1)) is None


def test_it_silences_removed_channels_and_leaves_no_hooks() -> None:
    net, graph, images = traced()
    masks = Masks({'first': torch.arange(6) < 3, 'second': torch.ones(4).bool()})
    regularizer = ActivationSparsity(2.0, only_removed=True)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    before = net.inner(images).mean((0, 2, 3)).detach()
    with regularizer.watching(graph, masks):
        for update in range(UPDATES):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(images), torch.arange(8) % 2)
            progress = Progress(update, UPDATES, None, 0.1, optimizer)
            regularizer.joined(loss, progress).backward()
            regularizer.add_gradient(graph, masks, progress)
            optimizer.step()
    after = net.inner(images).mean((0, 2, 3)).detach()
    assert float((after[3:] / before[3:]).max()) < 0.05
    assert float((after[:3] / before[:3]).min()) > 0.3
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_it_needs_masks_to_push_what_they_remove() -> None:
    net, graph, images = traced()
    regularizer = ActivationSparsity(1.0, only_removed=True)
    with (
        pytest.raises(ConfigError, match='there are no masks yet'),
        regularizer.watching(graph, None),
    ):
        net(images)
