"""Mask source: how much each layer stands (sensitivity analysis; Li et al., arXiv 1608.08710)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from easypruner import Budget, Component, Context, Masks, MaskSource, hookimpl
from easypruner.base.checks import check_count
from easypruner.errors import EasyPrunerError
from easypruner.graph import ChannelGraph
from easypruner.strategies.budgets.ranking import keep_best
from easypruner.strategies.sources.search import Search

_LIFT = 1e-6
"""By how much of the largest drop scores are set apart where a curve is flat."""


class Sensitivity(Search):
    """Scores a unit by what is lost with it and all units of its group that go before it.

    Each group alone is cut in ``steps`` steps, and the rise of the loss (or the drop of accuracy,
    in percent) measured after each: the curves of section 3.2 of the paper, there drawn for the
    eye to pick ratios from. Between two steps the curve is a line, and it never falls. A budget
    that ranks all units together so gives each layer the ratio at which it loses what the others
    lose; a ``Threshold`` is what each layer alone may lose.

    All steps meet the same batches, which stay in memory. Where there is a folder for it, each
    measured step is a line of ``candidates.jsonl`` there, and an analysis that was stopped goes on
    behind the last one. A folder belongs to one data set.

    Args:
        budget: how much may stay.
        source: ranks the units within each group, without a budget of its own; by default the L1
            norm of the weights that make a unit's channels, as in the paper.
        steps: evenly over each group; 9 are the paper's 10 % to 90 %.
        batches: of training data for the loss.
        calibration_batches: of training data on which batch norms are adapted after each cut; 0
            leaves them alone, as in the paper.
        by: ``'loss'`` on training batches, so that the validation data stay unseen, or
            ``'accuracy'`` on the validation data, as in the paper.
    """

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
        ranks = self.ranks(graph, context)
        curves = self.curves(graph, context, ranks)
        highest = max((drop for curve in curves.values() for drop in curve.values()), default=0.0)
        lift = _LIFT * (highest if highest > 0 else 1.0)
        return {name: _spread(ranks[name], curves[name], lift) for name in ranks}

    def curves(
        self, graph: ChannelGraph, context: Context, ranks: Mapping[str, Tensor]
    ) -> dict[str, dict[int, float]]:
        """Return group -> units that go -> what is lost with them, below 0 where it is a gain.

        Args:
            graph: of the model.
            context: has the data.
            ranks: group -> ``(units,)``, higher = keep.

        Raises:
            EasyPrunerError: what is measured is not a number; the message names the group.
        """
        trials = self.trials(graph, context)
        whole = trials.fitness(Masks())
        if not math.isfinite(whole):
            raise EasyPrunerError(
                f'the {self.trial.by} of the whole network is not a number, so Sensitivity cannot '
                'tell what a cut changes; the weights or the data are damaged'
            )
        cuts = [(name, gone) for name in ranks for gone in self._counts(ranks[name].numel())]
        curves: dict[str, dict[int, float]] = {name: {} for name in ranks}
        for name, gone in context.track(cuts, len(cuts)):
            kept = ranks[name].numel() - gone
            left = trials.fitness(Masks({name: keep_best(ranks[name], kept)}))
            if not math.isfinite(left):
                raise EasyPrunerError(
                    f'the {self.trial.by} without {gone} units of group {name!r} is not a number, '
                    'so Sensitivity cannot rank them; the weights or the data are damaged'
                )
            curves[name][gone] = whole - left
        return curves

    def _counts(self, size: int) -> list[int]:
        """Return how many units go at each step, some of a small group being the same."""
        counts = {round(size * step / (self.steps + 1)) for step in range(1, self.steps + 1)}
        return sorted(count for count in counts if 0 < count < size)

    @classmethod
    def example(cls, graph: ChannelGraph, folder: Path) -> Mapping[str, Any]:
        return {'steps': 2, 'batches': 1}


def _spread(ranks: Tensor, curve: Mapping[int, float], lift: float) -> Tensor:
    """Return the score of each unit by its place on the curve of its group."""
    size = ranks.numel()
    gone = np.array([0, *curve], dtype=np.float64)
    lost = np.maximum.accumulate(np.array([0.0, *curve.values()]))
    # Nothing tells what the last units are worth; the last slope goes on.
    slope = (lost[-1] - lost[-2]) / (gone[-1] - gone[-2]) if len(gone) > 1 else 0.0
    gone, lost = np.append(gone, size), np.append(lost, lost[-1] + slope * (size - gone[-1]))
    place = np.arange(1, size + 1)
    values = np.interp(place, gone, lost) + lift * place / size
    scores = torch.empty(size, dtype=torch.float64)
    scores[ranks.argsort(stable=True)] = torch.from_numpy(values)
    return scores


@hookimpl
def easypruner_components() -> Iterable[type[Component]]:
    return [Sensitivity]
