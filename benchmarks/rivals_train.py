"""The network, the images and the training loop of benchmarks/rivals.py, for all methods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from grid_network import Data
from torch import Tensor, nn
from torch.nn import functional

from easypruner.models.resnet_cifar import ResNetCifar

BATCH = 64
MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4


class Network(nn.Module):
    """A ResNet-20 for grey images in ten classes.

    Args:
        width: the channels of the first of three stages; each other has twice as many.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.backbone = ResNetCifar(20, in_channels=1, width=width)
        self.head = nn.Linear(4 * width, 10)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        return self.head(self.backbone(images)[0].mean((2, 3)))


@dataclass(frozen=True)
class Hooks:
    """What a method does while the network trains.

    Attributes:
        start: called with the optimizer, the number of updates and the scheduler.
        backward: called after each backward pass.
        epoch: called after each epoch.
    """

    start: Callable[[torch.optim.Optimizer, int, Any], object] | None = None
    backward: Callable[[], object] | None = None
    epoch: Callable[[], object] | None = None


def train(
    network: nn.Module,
    data: Data,
    epochs: int,
    seed: int,
    lr: float,
    weight_decay: float = WEIGHT_DECAY,
    hooks: Hooks | None = None,
) -> None:
    """Train with SGD and a cosine schedule.

    Args:
        network: which is changed.
        data: its images.
        epochs: how often it sees all of them.
        seed: of their order.
        lr: the learning rate at the start.
        weight_decay: of all parameters.
        hooks: what a method does meanwhile.
    """
    hooks = hooks or Hooks()
    optimizer = torch.optim.SGD(
        network.parameters(), lr, momentum=MOMENTUM, weight_decay=weight_decay, nesterov=True
    )
    updates = epochs * (len(data.images) // BATCH)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    if hooks.start is not None:
        hooks.start(optimizer, updates, scheduler)
    order = torch.Generator().manual_seed(seed)
    network.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(data.images), generator=order).split(BATCH):
            if len(batch) == BATCH:
                loss = functional.cross_entropy(network(data.images[batch]), data.labels[batch])
                optimizer.zero_grad()
                loss.backward()
                if hooks.backward is not None:
                    hooks.backward()
                optimizer.step()
                scheduler.step()
        if hooks.epoch is not None:
            hooks.epoch()
    network.eval()


def sum_of_rates(epochs: int, images: int, lr: float) -> float:
    """Return the sum of the learning rates of :func:`train`."""
    return epochs * (images // BATCH) * lr / 2


def with_validation(data: Data, images: int) -> Data:
    """Return a data set that tests on the last images to train on, and does not train on these."""
    return replace(
        data,
        images=data.images[:-images],
        labels=data.labels[:-images],
        test_images=data.images[-images:],
        test_labels=data.labels[-images:],
    )
