"""WeightSource: the base class of mask sources that score units by selected weights."""

from __future__ import annotations

from collections.abc import Sequence

from easypruner.base.checks import check_name
from easypruner.strategies.budgets.budget import Budget
from easypruner.strategies.measures.units import OVER
from easypruner.strategies.sources.source import MaskSource


class WeightSource(MaskSource):
    """A mask source that scores units by the weights that ``over`` selects.

    Args:
        over: which weights are used: ``'producers'``, those that produce a unit's channels, or
            ``'group'``, all parameters of the coupled layers, with the weights that read the
            channels, norm scales and biases.
    """

    def __init__(
        self,
        budget: Budget | Sequence[Budget] | None = None,
        over: str = 'producers',
        reduction: str = 'mean',
        normalization: str = 'none',
    ) -> None:
        super().__init__(budget, reduction, normalization)
        self.over = check_name(over, 'over', type(self).__name__, OVER)
