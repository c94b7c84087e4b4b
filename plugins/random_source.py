"""Mask source: random scores, the baseline for every other source."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from easypruner import Budget, Context, MaskSource, hookimpl
from easypruner.graph import ChannelGraph


class Random(MaskSource):
    """Scores units uniformly at random; the same seed gives the same scores.

    Use when:
        A baseline is needed. A criterion is only useful if it beats random channels at the same
        budget and with the same training.

    Fails when:
        Accuracy matters right after the cut.

    Values:
        Several seeds, to see how much the result varies.

    Args:
        seed: the seed of the scores; None for the seed of the run.
    """

    def __init__(
        self, budget: Budget | Sequence[Budget] | None = None, seed: int | None = None
    ) -> None:
        super().__init__(budget)
        self.seed = seed

    def score(self, graph: ChannelGraph, context: Context) -> dict[str, Tensor]:
        generator = context.generator(self.seed)
        return {
            name: torch.rand(group.size, generator=generator)
            for name, group in graph.groups.items()
        }


easypruner_components = hookimpl(lambda: [Random])
