"""Mask source: mean activations (Polyak and Wolf, 2015; Molchanov et al., 2017, 1611.06440)."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from easypruner import Budget, Component, Context, MaskSource, hookimpl
from easypruner.base.checks import check_count
from easypruner.graph import ChannelGraph
from easypruner.strategies.measures.activations import collect


class MeanActivation(MaskSource):
    """Scores a unit by the mean of |activation| of its channels over samples and positions.

    The activation criterion of section 2.2 of Molchanov et al.; behind a ReLU magnitudes are the
    activations themselves. Channels are looked at as the layers that read them get them, behind
    norm and activation; each such layer is one of the coupled layers that ``reduction`` combines.
    Layers differ in scale, so scores are divided by their group's mean unless ``normalization``
    says otherwise.

    Args:
        budget: how much may stay.
        batches: of training data.
        reduction: over the layers that read a group.
        normalization: across groups.
    """

    def __init__(
        self,
        budget: Budget | None = None,
        batches: int = 10,
        reduction: str = 'mean',
        normalization: str = 'mean',
    ) -> None:
        super().__init__(budget, reduction, normalization)
        self.batches = check_count(batches, 'batches', 'MeanActivation')

    def score(self, graph: ChannelGraph, context: Context) -> dict[str, Tensor]:
        return collect(graph, context, self.batches, 'MeanActivation', abs)


@hookimpl
def easypruner_components() -> Iterable[type[Component]]:
    return [MeanActivation]
