"""Budgets of cost: a limit that is met exactly, alone or together with others."""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from easypruner.arguments import check_number, is_number
from easypruner.contracts.budget import Budget
from easypruner.contracts.context import Context
from easypruner.errors import ConfigError
from easypruner.masks import Masks
from easypruner.toolkit.ranking import Ranking

if TYPE_CHECKING:
    from easypruner.graph import ChannelGraph


def check_share(value: Any, argument: str, owner: str) -> None:
    """Raise ConfigError unless a value is a share in 0..1.

    Args:
        value: as a config gives it.
        argument: its name, for the message.
        owner: whose argument it is.
    """
    if not is_number(value) or not 0 <= value <= 1:
        raise ConfigError(
            f'{argument}={value!r} of {owner} is not a share; expected a number in 0..1'
        )


@dataclass(frozen=True)
class Step:
    """One of several steps in which a run removes its channels.

    Attributes:
        done: the share of the way that earlier steps have made, in 0..1.
        share: the share of the way after this step.
        reference: what the limit is a share of; None where that is not known any more.
    """

    done: float = 0.0
    share: float = 1.0
    reference: Any = None

    def share_of_start(self, keep: float) -> float:
        """Return the share of the network before the first step that stays after this one."""
        return _towards(keep, self.share)

    def share_at_hand(self, keep: float) -> float:
        """Return the share that stays of what earlier steps have left, as planned.

        Args:
            keep: the share of the whole network that all steps together keep.

        >>> Step(0.5, 1.0).share_at_hand(0.5)  # from 75 % to 50 %
        0.6666666666666666
        """
        left = _towards(keep, self.done)
        return self.share_of_start(keep) / left if left else 0.0

    @property
    def part(self) -> float:
        """The part of what was left of the way that this step makes."""
        return (self.share - self.done) / (1 - self.done)


def _towards(keep: float, way: float) -> float:
    """Return what is left after a share of the way; exactly 1 and ``keep`` at its ends."""
    return keep * way + (1 - way)


WHOLE = Step()
"""All of the way at once."""


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
        if keep is not None:
            check_share(keep, 'keep', name)
        if limit is not None:
            check_number(limit, 'limit', name)
        self.keep = keep
        self.limit = limit
        self.step = WHOLE

    @abstractmethod
    def cost(self, graph: ChannelGraph, masks: Mapping[str, Tensor] | None) -> float:
        """Return what the network costs under ``masks``, in :attr:`unit`; None keeps it whole.

        It does not grow when more is removed.
        """

    @property
    def exact(self) -> bool:
        """Whether :meth:`cost` is the same each time, and cheap enough to be tried on many masks.

        What is not is never combined with others: its own call has to find the masks.
        """
        return True

    def limit_for(self, graph: ChannelGraph) -> float:
        """Return the limit for a network, in :attr:`unit`."""
        if self.keep is not None:
            if self.step.reference is not None:
                return self.step.share_of_start(self.keep) * float(self.step.reference)
            return self.step.share_at_hand(self.keep) * self.cost(graph, None)
        assert self.limit is not None
        if self.step.part == 1:
            return self.limit
        now = self.cost(graph, None)
        return now + (self.limit - now) * self.step.part

    def __call__(
        self, scores: Mapping[str, Tensor], graph: ChannelGraph, context: Context
    ) -> Masks:
        ranking = Ranking.of(scores, graph.limits)
        return ranking.within(lambda m: self.cost(graph, m), self.limit_for(graph), self.unit)

    @property
    def asked(self) -> float:
        if self.keep is None:
            assert self.limit is not None
            return self.limit
        known = self.step.reference is not None
        return self.keep if known else self.step.share_at_hand(self.keep)

    def delivered(self, masks: Masks, graph: ChannelGraph) -> float:
        cost = self.cost(graph, masks)
        if self.keep is None:
            return cost
        whole = self.cost(graph, None) if self.step.reference is None else self.step.reference
        return cost / float(whole) if whole else 1.0

    def reference(self, graph: ChannelGraph) -> Any:
        return None if self.keep is None else self.cost(graph, None)

    def partial(self, done: float, share: float, reference: Any = None) -> Budget:
        """Return the budget of one step.

        With a reference it reports shares of the network before the first step, and no error of
        an earlier step adds to it; without, shares of the network at hand.
        """
        part = copy.copy(self)
        part.step = Step(done, share, reference)
        return part

    @classmethod
    def example(cls, graph: ChannelGraph, folder: Path) -> Mapping[str, Any]:
        return {'keep': 0.6}


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
        costs = [b for b in self.budgets if isinstance(b, CostBudget) and b.exact]
        found = [b(scores, graph, context) for b in self.budgets if b not in costs]
        if costs:
            found.append(_within_all(costs, scores, graph))
        names = dict.fromkeys(name for masks in found for name in masks)
        # All keep the best of the same scores: what the fewest keep, all of them keep.
        return Masks(
            {
                name: min((m[name] for m in found if name in m), key=lambda mask: int(mask.sum()))
                for name in names
            }
        )

    @property
    def kind(self) -> str:
        return ' + '.join(budget.kind for budget in self.budgets)

    @property
    def asked(self) -> float:
        return self.budgets[0].asked

    def asked_of(self, masks: Masks, graph: ChannelGraph) -> float:
        return self.budgets[0].asked_of(masks, graph)

    def delivered(self, masks: Masks, graph: ChannelGraph) -> float:
        return self.budgets[0].delivered(masks, graph)

    @property
    def spread(self) -> float | None:
        return self.budgets[0].spread

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
    ranking = Ranking.of(scores, graph.limits)
    limits = [budget.limit_for(graph) for budget in costs]
    for budget, limit in zip(costs, limits, strict=True):
        ranking.check_reach(partial(budget.cost, graph), limit, budget.unit)

    def worst(masks: Masks) -> float:
        """Return the largest share of its limit that any cost takes."""
        shares = []
        for budget, limit in zip(costs, limits, strict=True):
            cost = budget.cost(graph, masks)
            shares.append(cost / limit if limit else math.inf if cost else 0.0)
        return max(shares)

    return ranking.within(worst, 1.0, 'of the limits')
