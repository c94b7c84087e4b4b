"""A context as in a run, with a few random batches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from easypruner.base.modules import evaluating
from easypruner.strategies import Context
from easypruner.testing.networks import CLASSES, NETWORKS, TinyNetwork

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class _Data:
    network: TinyNetwork
    seed: int

    def batch(self, number: int) -> Batch:
        """Return eight samples and their classes; equal numbers give equal batches."""
        seed = 1000 * self.seed + number
        classes = torch.randint(CLASSES, (8,), generator=torch.Generator().manual_seed(seed))
        return self.network.inputs(seed, samples=8), classes

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the mean cross entropy."""
        weight = next(model.parameters())
        inputs, classes = batch[0].to(weight), batch[1].to(weight.device)
        return nn.functional.cross_entropy(model(inputs), classes)

    @torch.no_grad()
    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the logits."""
        return model(batch[0].to(next(model.parameters())))

    def evaluate(self, model: nn.Module) -> float:
        """Return the accuracy on two other batches, in percent."""
        batches = [self.batch(number) for number in (100, 101)]
        with evaluating(model):
            right = [
                (self.forward(model, batch).argmax(dim=1).cpu() == batch[1]) for batch in batches
            ]
        return float(100 * torch.cat(right).double().mean())


def tiny_batches(count: int = 3, seed: int = 0, network: TinyNetwork = NETWORKS[0]) -> list[Batch]:
    """Return the batches of :func:`tiny_context`. Each has eight samples and their classes."""
    data = _Data(network, seed)
    return [data.batch(number) for number in range(count)]


def tiny_context(
    network: TinyNetwork = NETWORKS[0],
    batches: int = 3,
    seed: int = 0,
    folder: Path | None = None,
) -> Context:
    """Return a context with seeded batches, a loss, forward passes and an accuracy.

    Args:
        network: the network for whose inputs the batches are made; by default images.
        batches: the number of training batches of eight samples; 0 for an empty data set.
        seed: the seed of the batches and of the context.
        folder: the folder in which a search can save its results.
    """
    data = _Data(network, seed)
    return Context(
        seed=seed,
        batches=lambda: (data.batch(number) for number in range(batches)),
        loss=data.loss,
        evaluate=data.evaluate,
        forward=data.forward,
        folder=folder,
    )
