"""Budgets that limit costs of the network, such as its MACs: one, or several at once."""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from torch import Tensor

from easypruner.base.checks import check_number, check_share
from easypruner.errors import ConfigError
from easypruner.graph import ChannelGraph, Masks
from easypruner.strategies.budgets.budget import Budget, DerivedBudget
from easypruner.strategies.budgets.ranking import Ranking
from easypruner.strategies.context import Context
from easypruner.strategies.scores import Scores


@dataclass(frozen=True)
class Portion:
    """The portion of all channels to remove that one of several cuts removes.

    Attributes:
        done: the progress that the earlier cuts have made, from 0 to 1.
        share: the progress after this cut.
        reference: the values that the limit is relative to; None if they are not known.
    """

    done: float = 0.0
    share: float = 1.0
    reference: Any = None

    def share_of_start(self, keep: float) -> float:
        """Return the share of the network before the first cut that stays after this cut."""
        return _interpolate(keep, self.share)

    def share_at_hand(self, keep: float) -> float:
        """Return the share of the current network that stays after this cut.

        Args:
            keep: the share of the whole network that stays after all cuts.

        >>> Portion(0.5, 1.0).share_at_hand(0.5)  # from 75 % to 50 %
        0.6666666666666666
        """
        left = _interpolate(keep, self.done)
        return self.share_of_start(keep) / left if left else 0.0

    def reported(self, keep: float) -> float:
        """Return the share of the network that a budget reports: with a reference, ``keep``."""
        return keep if self.reference is not None else self.share_at_hand(keep)

    @property
    def part(self) -> float:
        """The part of the remaining progress that this cut makes."""
        return (self.share - self.done) / (1 - self.done)


def _interpolate(keep: float, progress: float) -> float:
    """Return the share that stays at a progress: exactly 1 at 0, and ``keep`` at 1."""
    return keep * progress + (1 - progress)


class PortionedBudget(Budget):
    """A budget that computes the limit of each of several cuts itself.

    Attributes:
        portion: the portion that the current cut removes.
    """

    portion = Portion()

    example_arguments: ClassVar = {'keep': 0.6}

    def partial(self, done: float, share: float, reference: Any = None) -> Budget:
        """Return the budget of one cut.

        With a reference, it reports shares of the network before the first cut, so that the
        rounding of earlier cuts does not add up. Without one, it reports shares of the current
        network.
        """
        part = copy.copy(self)
        part.portion = Portion(done, share, reference)
        return part


class CostBudget(PortionedBudget):
    """Removes the units with the lowest scores until a cost of the network is within a limit.

    Units that still fit afterwards are restored, the best first, so that the cost is less than one
    unit below the limit. Each group keeps its best unit, and the units that its limits require.

    Args:
        keep: the limit as a share of the cost of the current network, from 0 to 1. Give either
            ``keep`` or ``limit``.
        limit: the limit in :attr:`unit`.
    """

    unit: str
    """The unit of the cost, such as ``'MACs'``."""

    def __init__(self, keep: float | None = None, limit: float | None = None) -> None:
        name = type(self).__name__
        if (keep is None) == (limit is None):
            raise ConfigError(
                f'keep={keep!r} and limit={limit!r} of {name}; expected exactly one of them: '
                f'keep, a share, or limit, in {self.unit}'
            )
        if keep is not None:
            check_share(keep, 'keep', name)
        if limit is not None:
            check_number(limit, 'limit', name, least=0)
        self.keep = keep
        self.limit = limit

    @abstractmethod
    def cost(self, graph: ChannelGraph, masks: Mapping[str, Tensor] | None) -> float:
        """Return the cost of the network under ``masks``, in :attr:`unit`.

        The cost must not grow when more units are removed. None as masks keeps the network whole.
        """

    @property
    def exact(self) -> bool:
        """Whether :meth:`cost` always returns the same, fast enough to try many masks.

        Only exact costs are brought under their limits together. Any other budget finds its own
        masks, by ``__call__``.
        """
        return True

    def limit_for(self, graph: ChannelGraph) -> float:
        """Return the limit for a network, in :attr:`unit`."""
        if self.keep is not None:
            if self.portion.reference is not None:
                return self.portion.share_of_start(self.keep) * float(self.portion.reference)
            return self.portion.share_at_hand(self.keep) * self.cost(graph, None)
        assert self.limit is not None
        if self.portion.part == 1:
            return self.limit
        now = self.cost(graph, None)
        return now + (self.limit - now) * self.portion.part

    def __call__(self, scores: Scores, graph: ChannelGraph, context: Context) -> Masks:
        cost, limit = partial(self.cost, graph), self.limit_for(graph)

        def within(scores: Scores) -> Masks:
            return Ranking.of(scores, graph.limits).within(cost, limit, self.unit)

        return self.choose(Scores.of(scores), graph, within)

    def choose(
        self, scores: Scores, graph: ChannelGraph, within: Callable[[Scores], Masks]
    ) -> Masks:
        """Return the masks that a ranking leads to; by default, the ranking by the scores.

        Args:
            scores: the scores, higher = keep.
            graph: the channel graph of the network.
            within: returns the masks within all limits that a ranking by given scores leads to.
        """
        return within(scores)

    @property
    def asked(self) -> float:
        if self.keep is None:
            assert self.limit is not None
            return self.limit
        return self.portion.reported(self.keep)

    def delivered(self, masks: Masks, graph: ChannelGraph) -> float:
        cost = self.cost(graph, masks)
        if self.keep is None:
            return cost
        reference = self.portion.reference
        whole = self.cost(graph, None) if reference is None else reference
        return cost / float(whole) if whole else 1.0

    def reference(self, graph: ChannelGraph) -> Any:
        return None if self.keep is None else self.cost(graph, None)


class Tightest(DerivedBudget):
    """Meets several budgets at once.

    Exact costs are brought under their limits together, which removes the fewest units. A unit
    stays only if all other budgets keep it as well. The first budget's limit is reported.

    Args:
        budgets: the budgets, at least one.
    """

    def __init__(self, budgets: Sequence[Budget]) -> None:
        if not budgets or not all(isinstance(budget, Budget) for budget in budgets):
            raise ConfigError(f'expected a list of budgets, got {list(budgets)!r}')
        super().__init__(budgets[0])
        self.budgets = tuple(budgets)

    def __call__(self, scores: Scores, graph: ChannelGraph, context: Context) -> Masks:
        costs = [b for b in self.budgets if isinstance(b, CostBudget) and b.exact]
        found = [b(scores, graph, context) for b in self.budgets if b not in costs]
        if costs:
            found.append(_within_all(costs, scores, graph))
        names = dict.fromkeys(name for masks in found for name in masks)
        # All masks keep the best units by the same scores, so the smallest one is in all others.
        return Masks(
            {
                name: min((m[name] for m in found if name in m), key=lambda mask: int(mask.sum()))
                for name in names
            }
        )

    @property
    def kind(self) -> str:
        return ' + '.join(budget.kind for budget in self.budgets)

    def parts(self) -> tuple[Budget, ...]:
        return tuple(part for budget in self.budgets for part in budget.parts())

    def reference(self, graph: ChannelGraph) -> Any:
        return [budget.reference(graph) for budget in self.budgets]

    def partial(self, done: float, share: float, reference: Any = None) -> Budget:
        known = [None] * len(self.budgets) if reference is None else reference
        return Tightest(
            [b.partial(done, share, r) for b, r in zip(self.budgets, known, strict=True)]
        )


def _within_all(
    costs: Sequence[CostBudget], scores: Mapping[str, Tensor], graph: ChannelGraph
) -> Masks:
    """Return masks under which every cost is within its limit."""
    limits = [(budget, budget.limit_for(graph)) for budget in costs]
    for budget, limit in limits:
        ranking = Ranking.of(scores, graph.limits)
        ranking.check_attainable(partial(budget.cost, graph), limit, budget.unit)

    def share(masks: Masks, budget: CostBudget, limit: float) -> float:
        """Return the share of its limit that a cost has."""
        cost = budget.cost(graph, masks)
        return cost / limit if limit else math.inf if cost else 0.0

    def within(scores: Scores) -> Masks:
        ranking = Ranking.of(scores, graph.limits)
        return ranking.within(
            lambda m: max(share(m, *each) for each in limits), 1.0, 'of the limits'
        )

    chosen = within
    for budget in costs:
        chosen = partial(budget.choose, graph=graph, within=chosen)
    return chosen(Scores.of(scores))
