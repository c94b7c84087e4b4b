"""Mask source: chance, the baseline every other source must beat."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from easypruner import Budget, Component, Context, MaskSource, hookimpl
from easypruner.graph import ChannelGraph


class Random(MaskSource):
    """Scores units uniformly at random, the same for the same seed.

    Args:
        budget: how much may stay.
        seed: of the scores; by default the run's.
    """

    def __init__(self, budget: Budget | None = None, seed: int | None = None) -> None:
        super().__init__(budget)
        self.seed = seed

    def score(self, graph: ChannelGraph, context: Context) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(context.seed if self.seed is None else self.seed)
        return {
            name: torch.rand(group.size, generator=generator)
            for name, group in graph.groups.items()
        }


@hookimpl
def easypruner_components() -> Iterable[type[Component]]:
    return [Random]
