"""Tightest: meets several budgets at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from easypruner.errors import ConfigError
from easypruner.graph import ChannelGraph
from easypruner.graph.masks import Masks
from easypruner.strategies.budgets.budget import Budget, DerivedBudget
from easypruner.strategies.budgets.costs import CostBudget
from easypruner.strategies.budgets.ranking import Ranking
from easypruner.strategies.context import Context
from easypruner.strategies.scores import Scores


class Tightest(DerivedBudget):
    """Meets several budgets at once.

    Exact costs are brought under their limits together, which removes the fewest units. A unit
    stays only if all other budgets keep it as well. The first budget's limit is reported.

    Args:
        budgets: the budgets, at least one.
    """

    def __init__(self, budgets: Sequence[Budget]) -> None:
        wrong = [budget for budget in budgets if not isinstance(budget, Budget)]
        if not budgets or wrong:
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
    ranking = Ranking.of(scores, graph.limits)
    limits = [budget.limit_for(graph) for budget in costs]
    for budget, limit in zip(costs, limits, strict=True):
        ranking.check_attainable(partial(budget.cost, graph), limit, budget.unit)

    def largest_share(masks: Masks) -> float:
        """Return the largest share of its limit that any cost has."""
        shares = []
        for budget, limit in zip(costs, limits, strict=True):
            cost = budget.cost(graph, masks)
            shares.append(cost / limit if limit else math.inf if cost else 0.0)
        return max(shares)

    return ranking.within(largest_share, 1.0, 'of the limits')
