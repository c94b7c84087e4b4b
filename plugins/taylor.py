"""Mask source: first-order Taylor expansion of the loss (Molchanov et al., 2019, 1906.10771)."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from easypruner import Budget, Component, Context, MaskSource, hookimpl
from easypruner.base.checks import check_count
from easypruner.graph import ChannelGraph
from easypruner.strategies.measures.gradients import SquaredProducts


class Taylor(MaskSource):
    """Scores a unit by how much the loss would change without it, in first order.

    ``form='gate'``: ``s_u = (sum of g * w)^2`` over the parameters that a gate on the unit's
    channels would multiply, g the gradient of the loss: the squared gradient of that gate. Gates
    are put behind norms, where the sum is gamma * dgamma + beta * dbeta; in groups without one,
    behind the layers that make the channels. ``form='weight'``: ``s_u = sum of (g * w)^2`` over
    the unit's weights. Either is the mean over mini-batches, as in the paper. The network runs in
    evaluation mode, and is left as it was.

    Args:
        budget: how much may stay.
        form: ``'gate'``, the paper's for networks with batch norm, or ``'weight'``.
        over: the weights that count in the weight form: ``'producers'``, those that make a unit's
            channels, or ``'group'``, all parameters of the coupled layers.
        batches: of training data.
        reduction: over the layers or gates of a group, whose contributions add up.
        normalization: across groups; scores are in the unit of the squared loss.
    """

    def __init__(
        self,
        budget: Budget | None = None,
        form: str = 'gate',
        over: str = 'producers',
        batches: int = 10,
        reduction: str = 'sum',
        normalization: str = 'none',
    ) -> None:
        super().__init__(budget, reduction, normalization)
        self.batches = check_count(batches, 'batches', 'Taylor')
        self._squares = SquaredProducts(form, over, 'Taylor')

    def score(self, graph: ChannelGraph, context: Context) -> dict[str, Tensor]:
        return self._squares.mean(graph, context, self.batches)


@hookimpl
def easypruner_components() -> Iterable[type[Component]]:
    return [Taylor]
