"""Budget: makes masks from scores, under a limit."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Any

from easypruner.graph import ChannelGraph, Masks
from easypruner.report.result import BudgetResult
from easypruner.strategies.budgets.ranking import partial_masks
from easypruner.strategies.budgets.uniform import uniformly
from easypruner.strategies.context import Context
from easypruner.strategies.scores import Scores
from easypruner.strategies.strategy import Strategy


class Budget(Strategy):
    """Makes masks from scores, under a limit.

    Attributes:
        kind: the name of the limit in summaries; by default the class name.
    """

    def __init_subclass__(cls, **defaults: Any) -> None:
        super().__init_subclass__(**defaults)
        # Whatever a budget does, groups that have to keep the same number of units do.
        if '__call__' in vars(cls):
            cls.__call__ = uniformly(cls.__call__)  # type: ignore[method-assign]

    @abstractmethod
    def __call__(self, scores: Scores, graph: ChannelGraph, context: Context) -> Masks:
        """Return masks that meet the limit.

        Args:
            scores: the scores of the units; a group without scores stays whole.
            graph: the channel graph of the network.
            context: what else the budget may use.

        Raises:
            BudgetError: no masks meet the limit; the message says which limit can be met, and
                which rule prevents a lower one.
        """

    @property
    def kind(self) -> str:
        return type(self).__name__

    @property
    @abstractmethod
    def asked(self) -> float:
        """The limit as the user gave it."""

    def asked_of(self, masks: Masks, graph: ChannelGraph) -> float:
        """Return the limit in the unit of :meth:`delivered`, if it depends on the network.

        By default that is :attr:`asked`.
        """
        return self.asked

    @abstractmethod
    def delivered(self, masks: Masks, graph: ChannelGraph) -> float:
        """Return the value that ``masks`` achieve, in the unit of :attr:`asked`."""

    @property
    def spread(self) -> float | None:
        """The uncertainty of :meth:`delivered`, if it was measured; else None."""
        return None

    @property
    def where(self) -> str:
        """What :meth:`delivered` was measured on, such as the runtime and the machine; else ''."""
        return ''

    def margin(self, scores: Scores, graph: ChannelGraph) -> float | None:
        """Return how far the lowest score is above the threshold of this budget.

        By default None: the budget has no threshold.
        """
        return None

    def parts(self) -> tuple[Budget, ...]:
        """Return the budgets that this one consists of; by default only itself."""
        return (self,)

    def reference(self, graph: ChannelGraph) -> Any:
        """Return the values that the limit is relative to, for a run with several cuts.

        Args:
            graph: the channel graph of the network before the first cut.

        Returns:
            a value that JSON can represent; None if the budget needs none.
        """
        return None

    def partial(self, done: float, share: float, reference: Any = None) -> Budget:
        """Return the budget of one cut in a run that removes its channels in several cuts.

        By default, the cut removes a part of the units that this budget would remove from the
        current network, the lowest scores first. A limit that is a share of the current network
        would be a different share after each cut, so such a budget overrides this method.

        Args:
            done: the progress that the earlier cuts have made, from 0 to 1 and below ``share``.
            share: the progress after this cut; 1 at the last one.
            reference: :meth:`reference` of the network before the first cut. Without it, the
                earlier cuts are assumed to have made exactly the progress ``done``.
        """
        return self if share >= 1 else _PartialBudget(self, done, share)


class DerivedBudget(Budget):
    """A budget that reports the limit and the result of another one.

    Args:
        reported: the other budget.
    """

    def __init__(self, reported: Budget) -> None:
        self._reported = reported

    @property
    def kind(self) -> str:
        return self._reported.kind

    @property
    def asked(self) -> float:
        return self._reported.asked

    def asked_of(self, masks: Masks, graph: ChannelGraph) -> float:
        return self._reported.asked_of(masks, graph)

    def delivered(self, masks: Masks, graph: ChannelGraph) -> float:
        return self._reported.delivered(masks, graph)

    @property
    def spread(self) -> float | None:
        return self._reported.spread

    @property
    def where(self) -> str:
        return self._reported.where


class _PartialBudget(DerivedBudget):
    """Removes a part of the units that another budget would remove."""

    def __init__(self, whole: Budget, done: float, share: float) -> None:
        super().__init__(whole)
        self._part = (share - done) / (1 - done)

    def __call__(self, scores: Scores, graph: ChannelGraph, context: Context) -> Masks:
        masks = self._reported(scores, graph, context)
        return partial_masks(masks, scores, graph.limits, self._part)


def budget_result(budget: Budget, masks: Masks, graph: ChannelGraph) -> BudgetResult:
    """Return the limit and the result of a budget, and of each budget that it consists of."""
    each = []
    for part in budget.parts():
        delivered = part.delivered(masks, graph)
        asked = part.asked_of(masks, graph)
        each.append(BudgetResult(part.kind, asked, delivered, part.spread, part.where))
    if len(each) == 1:
        return each[0]
    return replace(each[0], kind=budget.kind, parts=tuple(each))
