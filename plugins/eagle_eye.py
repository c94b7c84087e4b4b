"""Mask source: the best of random widths, batch norm adapted (EagleEye; arXiv 2007.02491)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from easypruner import Budget, Component, Context, Masks, MaskSource, hookimpl
from easypruner.base.checks import check_count, check_number, check_share
from easypruner.graph import ChannelGraph
from easypruner.strategies.sources.candidates import from_main, masks_digest
from easypruner.strategies.sources.search import Search, Widths


class EagleEye(Search):
    """Draws candidates at random, adapts the batch norms of each, and takes the best (Li et al.).

    A candidate is a rate for each group, uniform up to ``max_removed``; the budget finds by what
    one factor all rates must be multiplied to meet its limit. So it has to rank groups together:
    one that looks at each by itself, such as ``Ratio`` by layer or by pattern or
    ``OptimalThreshold``, makes the same masks of all candidates, and they are taken unmeasured,
    with a warning. The first candidate has the same rate everywhere. Each is really cut on a copy,
    its batch norm statistics are averaged anew over ``calibration_batches`` (section 3.3 of the
    paper), and it is measured.

    All candidates meet the same batches, which stay in memory. Where there is a folder for it,
    each measured candidate is a line of ``candidates.jsonl`` there, and a search that was stopped
    goes on behind the last one. A folder belongs to one data set.

    Args:
        budget: how much may stay.
        source: ranks the units within each group, without a budget of its own; by default the L1
            norm of the weights that make a unit's channels, as in the paper.
        candidates: how many are drawn; the paper draws 1000 for ImageNet, its best are among the
            first 100 or so.
        tolerance: candidates that miss the limit by more than this share of the network, beyond
            what the nearest of them misses it by, are passed over unmeasured.
        max_removed: the largest share of a group that goes, unless the limit cannot be met so.
        batches: of training data for the loss.
        calibration_batches: of training data on which batch norms are adapted; 0 leaves them
            alone.
        by: ``'loss'`` on training batches, so that the validation data stay unseen, or
            ``'accuracy'`` on the validation data.
        seed: of the candidates; by default the run's.
    """

    def __init__(
        self,
        budget: Budget | Sequence[Budget] | None = None,
        source: MaskSource | None = None,
        candidates: int = 50,
        tolerance: float = 0.01,
        max_removed: float = 0.7,
        batches: int = 10,
        calibration_batches: int = 50,
        by: str = 'loss',
        seed: int | None = None,
    ) -> None:
        super().__init__(budget, source, by, batches, calibration_batches)
        self.candidates = check_count(candidates, 'candidates', 'EagleEye')
        check_share(tolerance, 'tolerance', 'EagleEye')
        self.tolerance = tolerance
        self.max_removed = check_number(max_removed, 'max_removed', 'EagleEye', above=0, most=1)
        self.seed = seed

    def select(self, graph: ChannelGraph, context: Context) -> Masks:
        """Return the best candidate; of equal ones the first."""
        # Of what is measured, as latency, the main process's readings count.
        drawn = from_main(self._near(self._drawn(graph, context), graph))
        if len(drawn) == 1:
            return drawn[0]
        trials = self.trials(graph, context)
        fitness = [trials.fitness(masks) for masks in context.track(drawn, len(drawn))]
        best = max(range(len(drawn)), key=lambda number: fitness[number])
        if fitness[best] == -math.inf:
            raise self.nothing_worked()
        return drawn[best]

    def _drawn(self, graph: ChannelGraph, context: Context) -> list[Masks]:
        """Return the candidates, equal ones once."""
        widths = Widths.of(self.ranks(graph, context), self.max_removed)
        seed = context.seed if self.seed is None else self.seed
        generator = torch.Generator().manual_seed(seed)
        rates = [widths.even, *(widths.draw(generator) for _ in range(self.candidates - 1))]
        distinct: dict[str, Masks] = {}
        for _, masks in self.candidates_of(rates, widths, graph, context):
            distinct.setdefault(masks_digest(masks), masks)
        if len(distinct) == 1:
            self.warn_of_one(self.candidates)
        return list(distinct.values())

    def _near(self, drawn: list[Masks], graph: ChannelGraph) -> list[Masks]:
        """Return the candidates that are about as near to the limit as the nearest."""
        missed = [_missed(self.needed_budget(), masks, graph) for masks in drawn]
        most = min(missed) + self.tolerance
        return [masks for masks, off in zip(drawn, missed, strict=True) if off <= most]

    @classmethod
    def example(cls, graph: ChannelGraph, folder: Path) -> Mapping[str, Any]:
        return {'candidates': 3, 'batches': 1, 'calibration_batches': 1}


def _missed(budget: Budget, masks: Masks, graph: ChannelGraph) -> float:
    """Return how far masks are from the limit, as a share of what the whole network delivers.

    Of several limits the nearest counts: that is the one which binds. Noise is no distance.
    """
    whole = Masks({name: torch.ones_like(mask) for name, mask in masks.items()})
    missed = []
    for part in budget.parts():
        distance = abs(part.delivered(masks, graph) - part.asked_of(masks, graph))
        distance = max(distance - 2 * (part.spread or 0.0), 0.0)
        scale = abs(part.delivered(whole, graph))
        missed.append(distance / scale if scale else distance)
    return min(missed)


@hookimpl
def easypruner_components() -> Iterable[type[Component]]:
    return [EagleEye]
