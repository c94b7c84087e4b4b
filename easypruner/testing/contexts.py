"""What a component is given in a test: a context with random batches, a plugin, a budget."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from easypruner.base.modules import evaluating
from easypruner.errors import EasyPrunerError, nearest
from easypruner.plugins import load_plugins
from easypruner.plugins.registry import BUDGETS, build
from easypruner.strategies import Budget, Context
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
            right = [self.forward(model, b).argmax(dim=1).cpu() == b[1] for b in batches]
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


def component(name: str, folder: str | Path) -> Any:
    """Return the class of a plugin.

    Args:
        name: the name of the class. A class in the folder has priority over others of this name.
        folder: a folder in which each file is a plugin, as for ``--plugins``.

    Raises:
        EasyPrunerError: no plugin contributes such a class, or a plugin cannot be loaded.
    """
    infos = load_plugins([folder]).components
    found = [info for info in infos if info.name == name]
    home = Path(folder).resolve()
    own = [info for info in found if Path(info.plugin.file).parent == home]
    if len(own or found) > 1:
        kinds = ' and '.join(f'a {info.kind}' for info in own or found)
        raise EasyPrunerError(f'{name!r} is {kinds}; give one of them another name')
    if not found:
        known = {info.name for info in infos}
        raise EasyPrunerError(
            f'no plugin in {str(folder)!r} contributes {name!r}; {nearest(name, known)}'
        )
    return (own or found)[0].cls


def example_budget(keep: float = 0.6) -> Budget:
    """Return a budget for a source: a share of the multiply-adds to keep."""
    load_plugins()
    return build(BUDGETS, {'type': 'Macs', 'keep': keep})
