"""Mask source: sensitivity analysis of each layer (Li et al., 2017, arXiv 1608.08710)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from easypruner import Budget, Context, Masks, MaskSource, hookimpl
from easypruner.base.checks import check_count
from easypruner.errors import EasyPrunerError
from easypruner.graph import ChannelGraph
from easypruner.strategies.budgets.ranking import keep_best
from easypruner.strategies.sources.search import Search

_LIFT = 1e-6
"""The share of the largest loss by which scores differ where a curve is flat."""


class Sensitivity(Search):
    """Scores a unit by the loss when it and all units of its group before it are removed.

    Each group alone is cut in ``steps`` steps. After each step, the increase of the loss, or the
    decrease of the accuracy in percent, is measured. These are the curves of section 3.2 of the
    paper, where ratios are chosen by eye. Between two steps the curve is interpolated linearly, and
    it never decreases. A budget that ranks all groups together then gives each group the ratio at
    which it loses as much as the others. A ``Threshold`` is the loss that each group alone may
    cause.

    All steps are measured on the same batches, which stay in memory. In a run, each step is saved
    as a line of ``candidates.jsonl`` in the stage's folder, and an interrupted analysis continues
    after the last one. Use a folder for one data set only.

    Use when:
        Layers differ in how much they can be cut, and the source that ranks units does not compare
        layers. The cost is known in advance: ``steps`` measurements for each group.

    Fails when:
        Groups depend on each other: each one is cut alone, so the loss of cutting all of them is
        not predicted. The network has hundreds of groups, which takes long.

    Values:
        9 ``steps`` are the 10 % to 90 % of the paper, which measures ``by='accuracy'`` without
        calibration. With ``calibration_batches``, the curves of networks with batch norm are less
        steep and closer to those after training.

    Args:
        source: ranks the units of each group; it must not have a budget of its own. The default is
            the L1 norm of the weights that produce a unit's channels, as in the paper.
        steps: the number of steps, evenly over each group.
    """

    example_arguments: ClassVar = {'steps': 2, 'batches': 1}

    def __init__(
        self,
        budget: Budget | Sequence[Budget] | None = None,
        source: MaskSource | None = None,
        steps: int = 9,
        batches: int = 10,
        calibration_batches: int = 0,
        by: str = 'loss',
    ) -> None:
        super().__init__(budget, source, by, batches, calibration_batches)
        self.steps = check_count(steps, 'steps', 'Sensitivity')

    def score(self, graph: ChannelGraph, context: Context) -> dict[str, Tensor]:
        ranks = self.unit_scores(graph, context)
        curves = self.curves(graph, context, ranks)
        highest = max((drop for curve in curves.values() for drop in curve.values()), default=0.0)
        lift = _LIFT * (highest if highest > 0 else 1.0)
        return {name: _scores_on_curve(ranks[name], curves[name], lift) for name in ranks}

    def curves(
        self, graph: ChannelGraph, context: Context, ranks: Mapping[str, Tensor]
    ) -> dict[str, dict[int, float]]:
        """Return group -> number of removed units -> increase of the loss, negative for a decrease.

        Args:
            graph: the channel graph of the model.
            context: the source of data.
            ranks: group -> ``(units,)``, higher = keep.

        Raises:
            EasyPrunerError: a measurement is not a finite number; the message names the group.
        """
        measurements = self.measurements(graph, context)
        whole = measurements.fitness(Masks())
        if not math.isfinite(whole):
            raise EasyPrunerError(
                f'the {self.measurement.by} of the whole network is not a finite number, so '
                'Sensitivity cannot compare a cut network with it; the weights or the data are '
                'damaged'
            )
        cuts = [(name, gone) for name in ranks for gone in self._counts(ranks[name].numel())]
        curves: dict[str, dict[int, float]] = {name: {} for name in ranks}
        for name, gone in context.track(cuts, len(cuts)):
            kept = ranks[name].numel() - gone
            left = measurements.fitness(Masks({name: keep_best(ranks[name], kept)}))
            if not math.isfinite(left):
                raise EasyPrunerError(
                    f'the {self.measurement.by} without {gone} units of group {name!r} is not a '
                    'finite number, so Sensitivity cannot rank them; the weights or the data are '
                    'damaged'
                )
            curves[name][gone] = whole - left
        return curves

    def _counts(self, size: int) -> list[int]:
        """Return the number of removed units at each step, without repetitions."""
        counts = {round(size * step / (self.steps + 1)) for step in range(1, self.steps + 1)}
        return sorted(count for count in counts if 0 < count < size)


def _scores_on_curve(ranks: Tensor, curve: Mapping[int, float], lift: float) -> Tensor:
    """Return the score of each unit: the value of its group's curve when the unit is removed."""
    size = ranks.numel()
    gone = np.array([0, *curve], dtype=np.float64)
    lost = np.maximum.accumulate(np.array([0.0, *curve.values()]))
    # The last units were not measured: extrapolate with the last slope.
    slope = (lost[-1] - lost[-2]) / (gone[-1] - gone[-2]) if len(gone) > 1 else 0.0
    gone, lost = np.append(gone, size), np.append(lost, lost[-1] + slope * (size - gone[-1]))
    removed = np.arange(1, size + 1)
    values = np.interp(removed, gone, lost) + lift * removed / size
    return torch.from_numpy(values)[ranks.argsort(stable=True).argsort()]


easypruner_components = hookimpl(lambda: [Sensitivity])
