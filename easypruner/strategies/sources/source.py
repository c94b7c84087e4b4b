"""MaskSource: chooses the channels to keep."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from easypruner.base.checks import check_name
from easypruner.base.describe import describe
from easypruner.base.modules import copy_of
from easypruner.base.randomness import fixed_seed
from easypruner.errors import ConfigError, PluginError, nearest
from easypruner.graph import ChannelGraph
from easypruner.graph.masks import Masks
from easypruner.strategies.budgets.budget import Budget
from easypruner.strategies.budgets.tightest import Tightest
from easypruner.strategies.context import Context
from easypruner.strategies.scores import Scores
from easypruner.strategies.sources.scores import (
    NORMALIZATIONS,
    REDUCTIONS,
    normalize,
    reduce_layers,
)
from easypruner.strategies.strategy import Strategy


class MaskSource(Strategy):
    """Chooses the channels to keep. Ranked sources implement score(); searches override select().

    Args:
        budget: how much may stay; of several, all are kept to.
        reduction: how the scores of coupled layers become one: a name of
            :data:`easypruner.strategies.sources.scores.REDUCTIONS`.
        normalization: how the scores of groups are made comparable: a name of
            :data:`easypruner.strategies.sources.scores.NORMALIZATIONS`.
    """

    def __init__(
        self,
        budget: Budget | Sequence[Budget] | None = None,
        reduction: str = 'mean',
        normalization: str = 'none',
    ) -> None:
        owner = type(self).__name__
        self.budget = _one(budget)
        self.reduction = check_name(reduction, 'reduction', owner, REDUCTIONS)
        self.normalization = check_name(normalization, 'normalization', owner, NORMALIZATIONS)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # Whoever calls it, what a search returns is checked.
        if 'select' in vars(cls):
            cls.select = _checked(cls.select)  # type: ignore[method-assign]

    def score(self, graph: ChannelGraph, context: Context) -> dict[str, Tensor]:
        """Return group name -> scores, higher = keep.

        A tensor has shape ``(units,)``, or ``(layers, units)`` where each of the coupled layers
        scores on its own; these are reduced by :attr:`reduction`.
        """
        raise NotImplementedError(f'{type(self).__name__} implements neither score() nor select()')

    def select(self, graph: ChannelGraph, context: Context) -> Masks:
        """Return the masks; by default the budget's, on the reduced scores."""
        budget = self.needed_budget()
        masks = budget(self.ranking_scores(graph, context), graph, context)
        return _masks(masks, f'the budget {type(budget).__name__}')

    def ranking_scores(self, graph: ChannelGraph, context: Context) -> Scores:
        """Return :meth:`score`, reduced and normalized: group -> ``(units,)``, higher = keep.

        Raises:
            PluginError: what :meth:`score` returns are no scores of this graph.
            EasyPrunerError: scores that are not numbers, or that cannot be normalized.
        """
        scores = checked_scores(self.score(graph, context), graph, type(self).__name__)
        return normalize(reduce_layers(scores, self.reduction), self.normalization)

    def dry_run(self, graph: ChannelGraph, context: Context) -> None:
        """Raise what would stop :meth:`select` on a network whose weights are not trained yet.

        Called before a run starts. By default the budget is tried on equal scores, and
        :meth:`score` where it needs nothing but the graph.
        """
        ranks = type(self).select is MaskSource.select
        if ranks:
            self._try_scoring(graph, context)
        budget = self.needed_budget() if ranks else self.budget
        if budget is not None:
            scores = Scores({n: torch.ones(group.size) for n, group in graph.groups.items()})
            budget(scores, graph, context)

    def _try_scoring(self, graph: ChannelGraph, context: Context) -> None:
        """Raise PluginError if :meth:`score` works without data, but returns no scores."""
        name = type(self).__name__
        try:
            # Of what it remembers or does to a network, a run is to know nothing.
            source, model = copy.deepcopy(self), copy_of(graph.model)
            with fixed_seed(context.seed):
                scores = source.score(graph.on(model), context)
        except Exception:
            # It may be for lack of data, or because the weights are not trained yet.
            return
        checked_scores(scores, graph, name)

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
    return Tightest(budget)


def checked_scores(scores: Any, graph: ChannelGraph, source: str) -> dict[str, Tensor]:
    """Return what a source's score() has returned, whole numbers and bools as floats.

    Args:
        scores: as they were returned.
        graph: of the network that was scored.
        source: the name of its class, for messages.

    Raises:
        PluginError: they are not group name -> tensor ``(units,)`` or ``(layers, units)``.
    """
    owner = f'{source}.score()'
    if not isinstance(scores, Mapping):
        raise PluginError(
            f'{owner} returned {describe(scores)}; expected a dict of group name -> tensor of '
            'scores'
        )
    return {name: _checked_score(name, score, graph, owner) for name, score in scores.items()}


def _checked_score(name: Any, score: Any, graph: ChannelGraph, owner: str) -> Tensor:
    if name not in graph.groups:
        raise PluginError(
            f'{owner} scores group {name!r}, which the network does not have; '
            f'expected names of graph.groups; {nearest(str(name), graph.groups)}'
        )
    size = graph.groups[name].size
    shaped = isinstance(score, Tensor) and score.dim() in (1, 2) and score.shape[-1] == size
    if not shaped or score.is_complex() or not score.numel():
        advice = '' if isinstance(score, Tensor) else ', as torch.as_tensor makes one'
        raise PluginError(
            f'{owner} returned {describe(score)} for group {name!r} of {size} units; expected a '
            f'tensor of real numbers of shape ({size},), or (layers, {size}){advice}'
        )
    return score if score.is_floating_point() else score.double()


def _checked(select: Callable[..., Any]) -> Callable[..., Masks]:
    """Return a method select() whose result is checked."""

    @functools.wraps(select)
    def checked(self: MaskSource, *args: Any, **kwargs: Any) -> Masks:
        return _masks(select(self, *args, **kwargs), f'{type(self).__name__}.select()')

    return checked


def _masks(masks: Any, owner: str) -> Masks:
    if not isinstance(masks, Masks):
        raise PluginError(
            f'{owner} returned {describe(masks)}; expected easypruner.Masks, as '
            'Masks({group name: bool tensor, True = keep})'
        )
    return masks
