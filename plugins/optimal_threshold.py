"""Budget: a share of each group's energy (Ye et al., 2020, arXiv 2003.04566)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from easypruner import Budget, Component, Context, Masks, hookimpl
from easypruner.base.checks import check_share
from easypruner.errors import EasyPrunerError
from easypruner.graph import ChannelGraph
from easypruner.strategies.budgets.ranking import within_limits
from easypruner.strategies.scores import Scores


class OptimalThreshold(Budget):
    r"""Removes from each group the lowest-scored units that hold next to none of its energy.

    The energy of a unit is its score squared. With the scores ``s`` of a group in ascending order,
    the first k go, k the largest number for which

        s_1^2 + ... + s_k^2 <= share * (s_1^2 + ... + s_n^2)

    so each group gets a threshold of its own. Scores below 0 hold no energy. Units of infinite
    score stay, and the others are compared among themselves. Each group keeps what its limits ask
    for, and its best unit. Where they allow only some widths (``round_to``), it is the next one up,
    so that none loses more than the share.

    Args:
        share: of the group's energy, in 0..1. MaskSparsity uses 1e-4, the paper 1e-3, both on
            batch-norm scales.
    """

    @classmethod
    def example(cls, graph: ChannelGraph, folder: Path) -> Mapping[str, Any]:
        return {'share': 0.2}

    def __init__(self, share: float = 1e-4) -> None:
        check_share(share, 'share', 'OptimalThreshold')
        self.share = share
        self._energies: dict[str, Tensor] = {}

    def __call__(self, scores: Scores, graph: ChannelGraph, context: Context) -> Masks:
        self._energies = {name: _energies(score) for name, score in scores.items()}
        found = {
            name: _above(energy, scores[name], self.share)
            for name, energy in self._energies.items()
        }
        return within_limits(found, scores, graph.limits)

    @property
    def asked(self) -> float:
        return self.share

    def delivered(self, masks: Masks, graph: ChannelGraph) -> float:
        """Return the largest share of its energy that a group loses, by the scores last seen.

        Raises:
            EasyPrunerError: no scores of these groups have been seen.
        """
        lost = [0.0]
        for name, mask in masks.items():
            energy = self._energies.get(name)
            if energy is None or energy.shape != mask.shape:
                raise EasyPrunerError(
                    f'OptimalThreshold has seen no scores of group {name!r}, by which to tell how '
                    'much of its energy the masks remove; call it on scores of this graph first'
                )
            lost.append(float(energy[~mask].sum()))
        return max(lost)


def _energies(score: Tensor) -> Tensor:
    """Return each unit's share of what all finite scores of a group hold."""
    finite = torch.where(score.isinf(), 0, score.double()).clamp(min=0)
    # Squares of very large or very small numbers would leave the range of floating point.
    squares = (finite / finite.max()).square() if float(finite.max()) else finite
    return squares / squares.sum() if float(squares.sum()) else squares


def _above(energy: Tensor, score: Tensor, share: float) -> Tensor:
    """Return the mask of the units that stay."""
    order = score.argsort(stable=True)
    goes = (energy[order].cumsum(0) <= share) & (score[order] != torch.inf)
    mask = torch.ones(score.numel(), dtype=torch.bool)
    mask[order[goes]] = False
    return mask


@hookimpl
def easypruner_components() -> Iterable[type[Component]]:
    return [OptimalThreshold]
