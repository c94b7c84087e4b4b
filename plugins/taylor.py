"""Mask source: first-order Taylor expansion of the loss (Molchanov et al., 2019, 1906.10771)."""

from __future__ import annotations

from torch import Tensor

from easypruner import Context, hookimpl
from easypruner.graph import ChannelGraph
from easypruner.strategies.sources.bases import GradientSource


class Taylor(GradientSource, form='gate'):
    """Scores a unit by the squared change of the loss without it, in first order.

    ``form='gate'``: ``s_u = (sum of g * w)^2`` over the parameters that a gate on the unit's
    channels would multiply, where g is the gradient of the loss. This is the squared gradient of
    the gate. Gates are behind norms, where the sum is gamma * dgamma + beta * dbeta; in a group
    without norms, behind the layers that produce the channels. ``form='weight'``:
    ``s_u = sum of (g * w)^2`` over the unit's weights. Both are means over batches, as in the
    paper. The network runs in evaluation mode and stays unchanged.

    Use when:
        Data and a loss are available, magnitudes say little, or the network has no batch norm.
        Scores are comparable between layers without a normalization.

    Fails when:
        The training has converged so far that gradients are mostly noise; use more batches. Many
        channels are removed in one cut: the expansion only holds for small changes. The paper
        removes a few channels at a time, as ``Iterative`` does.

    Values:
        ``batches`` so that at least a few hundred samples are measured. ``form='gate'`` is the
        paper's choice for networks with batch norm.
    """

    def score(self, graph: ChannelGraph, context: Context) -> dict[str, Tensor]:
        return self.mean_squares(graph, context)


easypruner_components = hookimpl(lambda: [Taylor])
