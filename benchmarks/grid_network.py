"""The network of benchmarks/grid_accuracy.py: its images, training and evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

import easypruner
from easypruner.engine.compat import prepare

prepare()
from easypruner.datasets.mnist5k_hard import Mnist5kHard  # noqa: E402
from easypruner.models.resnet_cifar import ResNetCifar  # noqa: E402

DEPTH = 14
BATCH = 64
LEARNING_RATE = 0.1
_MEAN, _DEVIATION = 50.0, 80.0


class Network(nn.Module):
    """A ResNet for images of 28 x 28, which it sees at half the resolution.

    Args:
        width: the channels of the first of three stages; each other has twice as many.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(2)
        self.backbone = ResNetCifar(DEPTH, in_channels=1, width=width)
        self.head = nn.Linear(4 * width, 10)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        return self.head(self.backbone(self.pool(images))[0].mean((2, 3)))


Trained = Callable[[], Network]


@dataclass(frozen=True)
class Data:
    """Images, float32 of shape ``(images, 1, 28, 28)``, and labels, to train on and to test on."""

    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor

    @property
    def example(self) -> Tensor:
        """An image to trace a network with."""
        return self.test_images[:1]


def mnist(limit: int) -> Data:
    """Return the data set ``Mnist5kHard``, with at most ``limit`` images to train on."""
    return Data(*_split('train', limit), *_split('val', limit))


def _split(split: str, limit: int) -> tuple[Tensor, Tensor]:
    samples = Mnist5kHard(split).load_data_list()[:limit]  # type: ignore[arg-type]
    images = torch.stack([torch.from_numpy(sample['img']) for sample in samples])
    labels = torch.tensor([sample['gt_label'] for sample in samples])
    return (images.permute(0, 3, 1, 2).float() - _MEAN) / _DEVIATION, labels


def train(
    network: Network, data: Data, epochs: int, seed: int, push: Mapping[str, Any] | None = None
) -> None:
    """Train with SGD and a cosine schedule, as ``configs/_base_/schedules/digits.py`` does.

    Args:
        network: which is changed.
        data: its images.
        epochs: how often it sees all of them.
        seed: of their order.
        push: arguments of :func:`easypruner.regularize`.
    """
    optimizer = torch.optim.SGD(
        network.parameters(), LEARNING_RATE, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    updates = epochs * (len(data.images) // BATCH)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    if push is not None:
        easypruner.regularize(network, optimizer, updates=updates, scheduler=scheduler, **push)
    order = torch.Generator().manual_seed(seed)
    network.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(data.images), generator=order).split(BATCH):
            if len(batch) == BATCH:
                loss = functional.cross_entropy(network(data.images[batch]), data.labels[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                scheduler.step()
    network.eval()


@torch.no_grad()
def evaluate(network: Network, data: Data) -> dict[str, float]:
    """Return the accuracy in percent and the loss on the test images."""
    logits = torch.cat([network(batch) for batch in data.test_images.split(250)])
    right = (logits.argmax(1) == data.test_labels).double().mean()
    loss = functional.cross_entropy(logits, data.test_labels)
    return {'accuracy': 100 * float(right), 'loss': float(loss)}


def save(network: Network, file: Path) -> None:
    """Write the weights of a network."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix('.part')
    save_file({name: t.contiguous() for name, t in network.state_dict().items()}, part)
    part.replace(file)


def load(network: Network, file: Path) -> Network:
    """Load weights into a network, and return it in evaluation mode."""
    network.load_state_dict(load_file(file))
    return network.eval()
