"""Budget: turns scores into masks under a limit."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from easypruner.contracts.component import Component
from easypruner.contracts.context import Context
from easypruner.masks import Masks
from easypruner.ranking import part_of

if TYPE_CHECKING:
    from easypruner.graph import ChannelGraph


class Budget(Component):
    """Turns scores into masks under a limit.

    Attributes:
        kind: the limit's name in summaries; the class name unless set.
    """

    @abstractmethod
    def __call__(
        self, scores: Mapping[str, Tensor], graph: ChannelGraph, context: Context
    ) -> Masks:
        """Return masks that meet the limit.

        Raises:
            BudgetError: no mask meets it; the message says what the most is and which rule
                holds it.
        """

    @property
    def kind(self) -> str:
        return type(self).__name__

    @property
    @abstractmethod
    def asked(self) -> float:
        """The limit as the user gave it."""

    @abstractmethod
    def delivered(self, masks: Masks, graph: ChannelGraph) -> float:
        """What ``masks`` amount to, in the unit of :attr:`asked`."""

    def partial(self, done: float, share: float) -> Budget:
        """Return the budget of one step of a run that removes its channels in several.

        By default the step removes its part of what this budget would remove of the network as
        it stands, the lowest scores first. Where the limit is a share of the network at hand,
        that is another share after each cut: such budgets override this.

        Args:
            done: the share of the way that earlier steps have made, in 0..1 and below ``share``.
            share: the share of the way after this step; 1 at the last.
        """
        return self if share >= 1 else _Part(self, done, share)


class _Part(Budget):
    """What is left of the way of another budget, in part."""

    def __init__(self, whole: Budget, done: float, share: float) -> None:
        self._whole = whole
        self._part = (share - done) / (1 - done)

    def __call__(
        self, scores: Mapping[str, Tensor], graph: ChannelGraph, context: Context
    ) -> Masks:
        return part_of(self._whole(scores, graph, context), scores, graph.limits, self._part)

    @property
    def kind(self) -> str:
        return self._whole.kind

    @property
    def asked(self) -> float:
        return self._whole.asked

    def delivered(self, masks: Masks, graph: ChannelGraph) -> float:
        return self._whole.delivered(masks, graph)
