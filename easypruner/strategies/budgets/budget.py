"""Budget: turns scores into masks under a limit."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Any

from easypruner.graph import ChannelGraph
from easypruner.graph.masks import Masks
from easypruner.report.result import BudgetResult
from easypruner.strategies.budgets.ranking import part_of
from easypruner.strategies.context import Context
from easypruner.strategies.scores import Scores
from easypruner.strategies.strategy import Strategy


class Budget(Strategy):
    """Turns scores into masks under a limit.

    Attributes:
        kind: the limit's name in summaries; the class name unless set.
    """

    @abstractmethod
    def __call__(self, scores: Scores, graph: ChannelGraph, context: Context) -> Masks:
        """Return masks that meet the limit.

        Args:
            scores: of the units; groups without scores stay whole.
            graph: of the network.
            context: what else the budget may use.

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

    def asked_of(self, masks: Masks, graph: ChannelGraph) -> float:
        """Return the limit in the unit of :meth:`delivered`, where it depends on the network.

        By default that is :attr:`asked`.
        """
        return self.asked

    @abstractmethod
    def delivered(self, masks: Masks, graph: ChannelGraph) -> float:
        """What ``masks`` amount to, in the unit of :attr:`asked`."""

    @property
    def spread(self) -> float | None:
        """How far :meth:`delivered` strayed when it was measured; None where it is exact.

        The median absolute deviation, in the unit of :attr:`asked`.
        """
        return None

    def parts(self) -> tuple[Budget, ...]:
        """Return the budgets that this one consists of, each with its own asked and delivered."""
        return (self,)

    def reference(self, graph: ChannelGraph) -> Any:
        """Return what the limit is a share of, for a run that removes channels in several steps.

        Args:
            graph: of the network before the first step.

        Returns:
            what JSON can hold; None where nothing need be known.
        """
        return None

    def partial(self, done: float, share: float, reference: Any = None) -> Budget:
        """Return the budget of one step of a run that removes its channels in several.

        By default the step removes its part of what this budget would remove of the network as
        it stands, the lowest scores first. Where the limit is a share of the network at hand,
        that is another share after each cut: such budgets override this.

        Args:
            done: the share of the way that earlier steps have made, in 0..1 and below ``share``.
            share: the share of the way after this step; 1 at the last.
            reference: :meth:`reference` of the network before the first step. Without it the
                earlier steps are taken to have made exactly their share.
        """
        return self if share >= 1 else _Part(self, done, share)


class _Part(Budget):
    """What is left of the way of another budget, in part."""

    def __init__(self, whole: Budget, done: float, share: float) -> None:
        self._whole = whole
        self._part = (share - done) / (1 - done)

    def __call__(self, scores: Scores, graph: ChannelGraph, context: Context) -> Masks:
        return part_of(self._whole(scores, graph, context), scores, graph.limits, self._part)

    @property
    def kind(self) -> str:
        return self._whole.kind

    @property
    def asked(self) -> float:
        return self._whole.asked

    def asked_of(self, masks: Masks, graph: ChannelGraph) -> float:
        return self._whole.asked_of(masks, graph)

    def delivered(self, masks: Masks, graph: ChannelGraph) -> float:
        return self._whole.delivered(masks, graph)

    @property
    def spread(self) -> float | None:
        return self._whole.spread


def budget_result(budget: Budget, masks: Masks, graph: ChannelGraph) -> BudgetResult:
    """Return what a budget, and each that it consists of, asked for and got."""
    each = []
    for part in budget.parts():
        delivered = part.delivered(masks, graph)
        each.append(BudgetResult(part.kind, part.asked_of(masks, graph), delivered, part.spread))
    if len(each) == 1:
        return each[0]
    return replace(each[0], kind=budget.kind, parts=tuple(each))
