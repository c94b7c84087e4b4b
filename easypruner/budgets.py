"""Budgets of cost: a limit that is met exactly, alone or together with others."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from easypruner.contracts.budget import Budget
from easypruner.contracts.context import Context
from easypruner.errors import ConfigError
from easypruner.masks import Masks
from easypruner.ranking import Ranking

if TYPE_CHECKING:
    from easypruner.graph import ChannelGraph


class CostBudget(Budget):
    """Removes the lowest-scored units until a cost of the network is at a limit.

    Units that still fit at the end are given back, the best first, so that the limit is met to
    within the cheapest unit. Each group keeps what its limits ask for, and its best unit.

    Args:
        keep: the limit as a share of what the network at hand costs, in 0..1; or
        limit: the limit itself, in :attr:`unit`.
    """

    unit: str
    """What it is counted in, e.g. ``'MACs'``."""

    def __init__(self, keep: float | None = None, limit: float | None = None) -> None:
        name = type(self).__name__
        if (keep is None) == (limit is None):
            raise ConfigError(f'{name} takes either keep (a share) or limit ({self.unit})')
        if keep is not None and not 0 <= keep <= 1:
            raise ConfigError(f'keep={keep!r} of {name} is not a share; expected a number in 0..1')
        if limit is not None and limit < 0:
            raise ConfigError(f'limit={limit!r} of {name} is below 0')
        self.keep = keep
        self.limit = limit

    @abstractmethod
    def cost(self, graph: ChannelGraph, masks: Mapping[str, Tensor] | None) -> float:
        """Return what the network costs under ``masks``, in :attr:`unit`; None keeps it whole."""

    def limit_for(self, graph: ChannelGraph) -> float:
        """Return the limit for a network, in :attr:`unit`."""
        if self.limit is not None:
            return self.limit
        assert self.keep is not None
        return self.keep * self.cost(graph, None)

    def __call__(
        self, scores: Mapping[str, Tensor], graph: ChannelGraph, context: Context
    ) -> Masks:
        ranking = Ranking.of(scores, graph.limits)
        return ranking.within(lambda m: self.cost(graph, m), self.limit_for(graph), self.unit)

    @property
    def asked(self) -> float:
        value = self.limit if self.keep is None else self.keep
        assert value is not None
        return value

    def delivered(self, masks: Masks, graph: ChannelGraph) -> float:
        cost = self.cost(graph, masks)
        return cost if self.keep is None else cost / self.cost(graph, None)

    def partial(self, done: float, share: float) -> Budget:
        if self.keep is None:
            return self if share >= 1 else _Towards(self, (share - done) / (1 - done))
        return type(self)(keep=keep_of_step(self.keep, done, share))


def keep_of_step(keep: float, done: float, share: float) -> float:
    """Return the share that one step keeps of what the steps before it have left.

    Args:
        keep: the share of the whole network that all steps together keep.
        done: the share of the way that earlier steps have made, in 0..1.
        share: the share of the way after this step.

    >>> keep_of_step(0.5, 0.5, 1.0)  # from 75 % to 50 %
    0.6666666666666666
    """
    left = 1 - (1 - keep) * done
    return (1 - (1 - keep) * share) / left if left else 0.0


class _Towards(CostBudget):
    """Part of the way from what the network at hand costs to another budget's limit."""

    def __init__(self, whole: CostBudget, part: float) -> None:
        super().__init__(limit=whole.limit)
        self._whole = whole
        self._part = part
        self.unit = whole.unit

    def cost(self, graph: ChannelGraph, masks: Mapping[str, Tensor] | None) -> float:
        return self._whole.cost(graph, masks)

    def limit_for(self, graph: ChannelGraph) -> float:
        now, goal = self.cost(graph, None), self._whole.limit_for(graph)
        return now + (goal - now) * self._part

    @property
    def kind(self) -> str:
        return self._whole.kind


class Tightest(Budget):
    """Keeps to several budgets at once.

    Costs are brought under their limits together, so that no unit goes that need not; of what
    other budgets leave, only what all of them keep stays.

    Args:
        budgets: two or more.
    """

    def __init__(self, budgets: Sequence[Budget]) -> None:
        wrong = [budget for budget in budgets if not isinstance(budget, Budget)]
        if not budgets or wrong:
            raise ConfigError(f'expected a list of budgets, got {list(budgets)!r}')
        self.budgets = tuple(budgets)

    def __call__(
        self, scores: Mapping[str, Tensor], graph: ChannelGraph, context: Context
    ) -> Masks:
        costs = [budget for budget in self.budgets if isinstance(budget, CostBudget)]
        found = [b(scores, graph, context) for b in self.budgets if not isinstance(b, CostBudget)]
        if costs:
            found.append(_within_all(costs, scores, graph))
        first, *others = found
        kept = {name: mask.clone() for name, mask in first.items()}
        for masks in others:
            for name, mask in masks.items():
                kept[name] = kept[name] & mask if name in kept else mask
        return Masks(kept)

    @property
    def kind(self) -> str:
        return ' + '.join(budget.kind for budget in self.budgets)

    @property
    def asked(self) -> float:
        return self.budgets[0].asked

    def delivered(self, masks: Masks, graph: ChannelGraph) -> float:
        return self.budgets[0].delivered(masks, graph)

    def partial(self, done: float, share: float) -> Budget:
        return Tightest([budget.partial(done, share) for budget in self.budgets])


def _within_all(
    costs: Sequence[CostBudget], scores: Mapping[str, Tensor], graph: ChannelGraph
) -> Masks:
    limits = [budget.limit_for(graph) for budget in costs]

    def worst(masks: Masks) -> float:
        """Return the largest share of its limit that any cost takes."""
        shares = []
        for budget, limit in zip(costs, limits, strict=True):
            cost = budget.cost(graph, masks)
            shares.append(cost / limit if limit else float('inf'))
        return max(shares)

    names = ' and '.join(f'{limit:,.0f} {b.unit}' for b, limit in zip(costs, limits, strict=True))
    return Ranking.of(scores, graph.limits).within(worst, 1.0, f'times the limits ({names})')
