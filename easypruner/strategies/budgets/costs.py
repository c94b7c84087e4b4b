"""Budgets of cost: a limit that is met exactly, alone or together with others."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from easypruner.base.checks import check_number, check_share
from easypruner.errors import ConfigError
from easypruner.graph import ChannelGraph
from easypruner.graph.masks import Masks
from easypruner.strategies.budgets.budget import Budget
from easypruner.strategies.budgets.ranking import Ranking
from easypruner.strategies.context import Context
from easypruner.strategies.scores import Scores


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
            check_number(limit, 'limit', name, least=0)
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

    def __call__(self, scores: Scores, graph: ChannelGraph, context: Context) -> Masks:
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
