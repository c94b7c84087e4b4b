"""ActivationSource: the base class of mask sources that score units by their activations."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor

from easypruner.base.checks import check_count
from easypruner.graph import ChannelGraph
from easypruner.strategies.budgets.budget import Budget
from easypruner.strategies.context import Context
from easypruner.strategies.measures.activations import Probe, collect
from easypruner.strategies.sources.source import MaskSource


class ActivationSource(MaskSource):
    """Scores a unit by the mean of a measure of its channels' activations.

    Each layer at which a group is measured is one of the coupled layers that ``reduction``
    combines.

    Args:
        batches: the number of batches of training data.
        reduction: how the scores of the layers at which a group is measured are combined.
    """

    def __init__(
        self,
        budget: Budget | Sequence[Budget] | None = None,
        batches: int = 10,
        reduction: str = 'mean',
        normalization: str = 'none',
    ) -> None:
        super().__init__(budget, reduction, normalization)
        self.batches = check_count(batches, 'batches', type(self).__name__)

    @abstractmethod
    def measure(self, maps: Tensor) -> Tensor:
        """Return a measure of maps; see ``Measure`` of easypruner.strategies.measures."""

    def probes(self, graph: ChannelGraph, context: Context) -> list[Probe] | None:
        """Return the probes at which to measure; None for the inputs of the layers that read."""
        return None

    def score(self, graph: ChannelGraph, context: Context) -> dict[str, Tensor]:
        probes = self.probes(graph, context)
        return collect(graph, context, self.batches, type(self).__name__, self.measure, probes)
