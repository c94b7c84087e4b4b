"""Mask source: the best of random widths (EagleEye; Li et al., 2020, arXiv 2007.02491)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch

from easypruner import Budget, Context, Masks, MaskSource, hookimpl
from easypruner.base.checks import check_count, check_share
from easypruner.base.distributed import from_main
from easypruner.graph import ChannelGraph
from easypruner.strategies.sources.candidates import masks_digest
from easypruner.strategies.sources.search import RateSearch


class EagleEye(RateSearch):
    """Draws candidates at random, calibrates the batch norms of each, and returns the best.

    A candidate is a removal rate for each group, uniform up to ``max_removed``. The budget finds
    the factor by which all rates must be multiplied to meet its limit. It must therefore rank
    groups together, as ``Macs`` does. The first candidate has the same rate for all groups. Each
    candidate is cut on a copy, its batch norm statistics are estimated again over
    ``calibration_batches`` (section 3.3 of the paper), and its loss or accuracy is measured.

    All candidates are measured on the same batches, which stay in memory. In a run, each measured
    candidate is saved as a line of ``candidates.jsonl`` in the stage's folder, and an interrupted
    search continues after the last one. Use a folder for one data set only.

    Use when:
        The widths of the layers matter more than the choice of channels, and some minutes to hours
        of forward passes are available. The network has batch norms: the paper shows that without
        their calibration the accuracy of a candidate does not predict the accuracy after training.

    Fails when:
        The budget ranks each group by itself, such as ``Ratio`` with ``scope='layer'`` or
        ``OptimalThreshold``: then all candidates have the same masks, and the search returns them
        unmeasured, with a warning. With many groups, random candidates rarely come close to the
        best widths; ``Evolution`` improves on them.

    Values:
        50 to 100 ``candidates``. The paper draws 1000 for ImageNet and finds its best among the
        first 100. Enough ``calibration_batches`` that the statistics are stable.

    Args:
        source: ranks the units of each group; it must not have a budget of its own. The default is
            the L1 norm of the weights that produce a unit's channels, as in the paper.
        candidates: the number of candidates.
        tolerance: candidates are skipped if they are further from the limit, by this share of the
            network, than the nearest candidate.
        seed: the seed of the candidates; None for the seed of the run.
    """

    example_arguments: ClassVar = {'candidates': 3, 'batches': 1, 'calibration_batches': 1}

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
        super().__init__(budget, source, by, batches, calibration_batches, max_removed, seed)
        self.candidates = check_count(candidates, 'candidates', 'EagleEye')
        self.tolerance = check_share(tolerance, 'tolerance', 'EagleEye')

    def select(self, graph: ChannelGraph, context: Context) -> Masks:
        """Return the best candidate; the first of equal ones."""
        # If the budget measures time, use the measurements of the main process.
        drawn = from_main(self._near(self._drawn(graph, context), graph))
        if len(drawn) == 1:
            return drawn[0]
        measurements = self.measurements(graph, context)
        fitness = [measurements.fitness(masks) for masks in context.track(drawn, len(drawn))]
        best = max(range(len(drawn)), key=lambda number: fitness[number])
        if fitness[best] == -math.inf:
            raise self.no_result()
        return drawn[best]

    def _drawn(self, graph: ChannelGraph, context: Context) -> list[Masks]:
        """Return the distinct candidates."""
        order = self.unit_order(graph, context)
        generator = context.generator(self.seed)
        drawn = (order.draw_rates(generator) for _ in range(self.candidates - 1))
        distinct: dict[str, Masks] = {}
        for _, masks in self.candidates_of([order.equal_rates, *drawn], order, graph, context):
            distinct.setdefault(masks_digest(masks), masks)
        if len(distinct) == 1:
            self.warn_of_one(self.candidates)
        return list(distinct.values())

    def _near(self, drawn: list[Masks], graph: ChannelGraph) -> list[Masks]:
        """Return the candidates that are about as close to the limit as the closest."""
        distances = [_distance(self.needed_budget(), masks, graph) for masks in drawn]
        most = min(distances) + self.tolerance
        return [masks for masks, d in zip(drawn, distances, strict=True) if d <= most]


def _distance(budget: Budget, masks: Masks, graph: ChannelGraph) -> float:
    """Return the distance of masks to the limit, as a share of the whole network's value.

    Of several limits, the closest is used, because it is the binding one. A distance within the
    noise of a measurement is 0.
    """
    whole = Masks({name: torch.ones_like(mask) for name, mask in masks.items()})
    distances = []
    for part in budget.parts():
        distance = abs(part.delivered(masks, graph) - part.asked_of(masks, graph))
        distance = max(distance - 2 * (part.spread or 0.0), 0.0)
        scale = abs(part.delivered(whole, graph))
        distances.append(distance / scale if scale else distance)
    return min(distances)


easypruner_components = hookimpl(lambda: [EagleEye])
