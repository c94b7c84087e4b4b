"""Budget: removes a share of each group's energy (Ye et al., 2020, arXiv 2003.04566)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from easypruner import Budget, Context, Masks, Scores, hookimpl
from easypruner.base.checks import check_share
from easypruner.errors import EasyPrunerError
from easypruner.graph import ChannelGraph
from easypruner.strategies.budgets.ranking import within_limits


class OptimalThreshold(Budget):
    r"""Removes from each group the units that together have a small share of its energy.

    The energy of a unit is its squared score. With the scores ``s`` of a group in ascending order,
    the first k units are removed, where k is the largest number with

        s_1^2 + ... + s_k^2 <= share * (s_1^2 + ... + s_n^2)

    Each group thus gets a threshold of its own. Scores below 0 have no energy. Units with an
    infinite score stay, and the shares are those of the other units. Each group keeps its best
    unit, and the units that its limits require. If limits allow only some widths (``round_to``), a
    group keeps the next larger one, so that no group loses more than the share.

    Use when:
        Batch norm scales were pushed to zero, and each layer should get its own threshold.

    Fails when:
        A certain size or speed is required, because the number of removed channels is not known in
        advance. Scores were not pushed: then hardly any units are below such small shares.

    Values:
        MaskSparsity uses a ``share`` of 1e-4 and the paper 1e-3, both on batch norm scales.

    Args:
        share: the share of a group's energy that is removed, from 0 to 1.
    """

    example_arguments: ClassVar = {'share': 0.2}

    def __init__(self, share: float = 1e-4) -> None:
        self.share = check_share(share, 'share', 'OptimalThreshold')
        self._energies: dict[str, Tensor] = {}

    def __call__(self, scores: Scores, graph: ChannelGraph, context: Context) -> Masks:
        self._energies = {name: _energies(score) for name, score in scores.items()}
        found = {
            name: _mask(energy, scores[name], self.share) for name, energy in self._energies.items()
        }
        return within_limits(found, scores, graph.limits)

    @property
    def asked(self) -> float:
        return self.share

    def delivered(self, masks: Masks, graph: ChannelGraph) -> float:
        """Return the largest share of its energy that a group loses, by the last scores.

        Raises:
            EasyPrunerError: the budget has not been called with scores of these groups.
        """
        lost = [0.0]
        for name, mask in masks.items():
            energy = self._energies.get(name)
            if energy is None or energy.shape != mask.shape:
                raise EasyPrunerError(
                    f'OptimalThreshold does not know the scores of group {name!r}, so it cannot '
                    'compute the energy that the masks remove; call it with scores of this graph '
                    'first'
                )
            lost.append(float(energy[~mask].sum()))
        return max(lost)


def _energies(score: Tensor) -> Tensor:
    """Return each unit's share of the energy of all finite scores of a group."""
    finite = torch.where(score.isinf(), 0, score.double()).clamp(min=0)
    # Divide first, because squares of very large or very small numbers over- or underflow.
    squares = (finite / finite.max()).square() if float(finite.max()) else finite
    return squares / squares.sum() if float(squares.sum()) else squares


def _mask(energy: Tensor, score: Tensor, share: float) -> Tensor:
    """Return the mask that removes the units with a share of the energy."""
    order = score.argsort(stable=True)
    removed = (energy[order].cumsum(0) <= share) & (score[order] != torch.inf)
    mask = torch.ones(score.numel(), dtype=torch.bool)
    mask[order[removed]] = False
    return mask


easypruner_components = hookimpl(lambda: [OptimalThreshold])
