"""Mask source: the empirical Fisher information (Theis et al., 2018, arXiv 1801.05787)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from easypruner import Budget, Context, hookimpl
from easypruner.base.checks import check_name
from easypruner.graph import ChannelGraph
from easypruner.strategies.sources.bases import GradientSource

PER = ('sample', 'batch')
"""What each gradient is computed for."""


class Fisher(GradientSource):
    """Scores a unit by the increase of the loss without it, with the Fisher matrix as Hessian.

    ``form='weight'`` is optimal brain damage (LeCun et al., 1990):
    ``s_u = 1/2 * sum of w^2 * F_ww`` over the weights of the unit, where
    ``F_ww = mean over samples of g^2`` and g is the gradient of a sample's loss. ``form='gate'`` is
    the method of the paper:
    ``s_u = 1/2 * mean over samples of (sum of g * w)^2``, the Fisher information of a gate on the
    unit's channels. Gates are behind norms; in a group without norms, behind the layers that
    produce the channels. The network runs in evaluation mode and stays unchanged.

    Use when:
        Data and a loss are available, and the change of the loss should be estimated in second
        order at the cost of first-order gradients.

    Fails when:
        The network does not fit the data: the Fisher matrix approximates the Hessian only near a
        minimum. ``per='sample'`` is slow, because each sample needs a backward pass of its own.
        The estimate ignores interactions between units, so remove few channels at a time.

    Values:
        ``form='gate'`` as in the paper. ``per='batch'`` for a fast, coarse estimate.

    Args:
        per: ``'sample'``, or ``'batch'`` for gradients of whole batches. The latter is faster by
            the number of samples in a batch, but squares mean gradients.
    """

    def __init__(
        self,
        budget: Budget | Sequence[Budget] | None = None,
        form: str = 'weight',
        over: str = 'producers',
        per: str = 'sample',
        batches: int = 10,
        reduction: str = 'sum',
        normalization: str = 'none',
    ) -> None:
        super().__init__(budget, form, over, batches, reduction, normalization)
        self.per = check_name(per, 'per', 'Fisher', PER)

    def score(self, graph: ChannelGraph, context: Context) -> dict[str, Tensor]:
        squares = self.mean_squares(graph, context, by_sample=self.per == 'sample')
        return {name: mean / 2 for name, mean in squares.items()}


easypruner_components = hookimpl(lambda: [Fisher])
