"""MaskSource: chooses the channels to keep."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from easypruner.contracts.budget import Budget
from easypruner.contracts.component import Component
from easypruner.contracts.context import Context
from easypruner.errors import ConfigError, nearest
from easypruner.masks import Masks
from easypruner.toolkit.scores import NORMALIZATIONS, REDUCTIONS, normalize, reduce_layers

if TYPE_CHECKING:
    from easypruner.graph import ChannelGraph


class MaskSource(Component):
    """Chooses the channels to keep. Ranked sources implement score(); searches override select().

    Args:
        budget: how much may stay; of several, all are kept to.
        reduction: how the scores of coupled layers become one: a name of
            :data:`easypruner.toolkit.scores.REDUCTIONS`.
        normalization: how the scores of groups are made comparable: a name of
            :data:`easypruner.toolkit.scores.NORMALIZATIONS`.
    """

    def __init__(
        self,
        budget: Budget | Sequence[Budget] | None = None,
        reduction: str = 'mean',
        normalization: str = 'none',
    ) -> None:
        self._check_name('reduction', reduction, REDUCTIONS)
        self._check_name('normalization', normalization, NORMALIZATIONS)
        self.budget = _one(budget)
        self.reduction = reduction
        self.normalization = normalization

    def _check_name(self, argument: str, name: str, known: Iterable[str]) -> None:
        if name not in known:
            raise ConfigError(
                f'{argument}={name!r} of {type(self).__name__} is not known; {nearest(name, known)}'
            )

    def score(self, graph: ChannelGraph, context: Context) -> dict[str, Tensor]:
        """Return group name -> scores, higher = keep.

        A tensor has shape ``(units,)``, or ``(layers, units)`` where each of the coupled layers
        scores on its own; these are reduced by :attr:`reduction`.
        """
        raise NotImplementedError(f'{type(self).__name__} implements neither score() nor select()')

    def select(self, graph: ChannelGraph, context: Context) -> Masks:
        """Return the masks; by default the budget's, on the reduced scores."""
        return self.needed_budget()(self.ranking_scores(graph, context), graph, context)

    def ranking_scores(self, graph: ChannelGraph, context: Context) -> dict[str, Tensor]:
        """Return :meth:`score`, reduced and normalized: group -> ``(units,)``, higher = keep."""
        reduced = reduce_layers(self.score(graph, context), self.reduction)
        return normalize(reduced, self.normalization)

    def try_on(self, graph: ChannelGraph, context: Context) -> None:
        """Raise what would stop :meth:`select` on a network whose weights are not trained yet.

        Called before a run starts. By default the budget is tried on equal scores.
        """
        ranks = type(self).select is MaskSource.select
        budget = self.needed_budget() if ranks else self.budget
        if budget is not None:
            scores = {name: torch.ones(group.size) for name, group in graph.groups.items()}
            budget(scores, graph, context)

    @classmethod
    def takes_budget(cls) -> bool:
        """Tell whether it can be given a budget: one that reads masks has no use for any."""
        parameters = inspect.signature(cls).parameters
        return 'budget' in parameters or any(
            parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()
        )

    def needed_budget(self) -> Budget:
        """Return the budget.

        Raises:
            ConfigError: there is none.
        """
        if self.budget is None and not self.takes_budget():
            raise ConfigError(
                f'{type(self).__name__} takes no budget: it chooses everything at once, and cannot '
                'make a part of the way; use a source that ranks channels'
            )
        if self.budget is None:
            raise ConfigError(
                f'{type(self).__name__} ranks channels and needs a budget; '
                "add budget=dict(type='Macs', keep=0.5) or another"
            )
        return self.budget


def _one(budget: Budget | Sequence[Budget] | None) -> Budget | None:
    if budget is None or isinstance(budget, Budget):
        return budget
    # The combination is a budget itself, and so builds on this module.
    from easypruner.toolkit.budgets import Tightest

    return Tightest(budget)
