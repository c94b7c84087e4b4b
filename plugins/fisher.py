"""Mask source: the empirical Fisher information (Theis et al., 2018, arXiv 1801.05787)."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from easypruner import Budget, Component, Context, MaskSource, hookimpl
from easypruner.base.checks import check_count, check_name
from easypruner.graph import ChannelGraph
from easypruner.strategies.measures.gradients import SquaredProducts

PER = ('sample', 'batch')
"""What one gradient is taken of."""


class Fisher(MaskSource):
    """Scores a unit by how much the loss would grow without it, the Hessian taken as the Fisher.

    Optimal brain damage (LeCun et al., 1990): ``s_u = 1/2 * sum of w^2 * F_ww`` over the weights
    of the unit, where ``F_ww = mean over samples of g^2``, g the gradient of a sample's loss.
    ``form='gate'`` is the paper's: ``s_u = 1/2 * mean over samples of (sum of g * w)^2``, the
    Fisher information of a gate on the unit's channels; gates are put behind norms and, in groups
    without one, behind the layers that make the channels. The network runs in evaluation mode,
    and is left as it was.

    Args:
        budget: how much may stay.
        form: ``'weight'`` or ``'gate'``.
        over: the weights that count in the weight form: ``'producers'``, those that make a unit's
            channels, or ``'group'``, all parameters of the coupled layers.
        per: ``'sample'``; or ``'batch'``, gradients of whole batches, as many times faster as a
            batch has samples: the squares are then those of mean gradients.
        batches: of training data.
        reduction: over the layers or gates of a group, whose contributions add up.
        normalization: across groups; scores are in the unit of the loss.
    """

    def __init__(
        self,
        budget: Budget | None = None,
        form: str = 'weight',
        over: str = 'producers',
        per: str = 'sample',
        batches: int = 10,
        reduction: str = 'sum',
        normalization: str = 'none',
    ) -> None:
        super().__init__(budget, reduction, normalization)
        self.per = check_name(per, 'per', 'Fisher', PER)
        self.batches = check_count(batches, 'batches', 'Fisher')
        self._squares = SquaredProducts(form, over, 'Fisher')

    def score(self, graph: ChannelGraph, context: Context) -> dict[str, Tensor]:
        by_sample = self.per == 'sample'
        means = self._squares.mean(graph, context, self.batches, by_sample)
        return {name: mean / 2 for name, mean in means.items()}


@hookimpl
def easypruner_components() -> Iterable[type[Component]]:
    return [Fisher]
