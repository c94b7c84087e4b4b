"""MaskSource: chooses the channels that stay."""

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
from easypruner.graph import ChannelGraph, Masks
from easypruner.graph.recording.wrappers import explained_without_values
from easypruner.strategies.budgets.budget import Budget
from easypruner.strategies.budgets.costs import Tightest
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
    """Chooses the channels that stay. Most sources implement score(), a search select().

    Args:
        budget: how much may stay; a list of budgets is met all at once.
        reduction: how the scores of coupled layers are combined: ``'mean'``, ``'max'``,
            ``'sum'``, ``'first'`` or ``'vote'``.
        normalization: how the scores of groups are made comparable: ``'none'``; ``'mean'``,
            ``'max'`` or ``'sum'`` divide by this value of the group; ``'gaussian'`` subtracts the
            mean and divides by the standard deviation; ``'lamp'`` divides each score by the sum of
            those that are not lower; ``'rank'`` is the position in the group, which removes the
            same share of each group.
    """

    def __init__(
        self,
        budget: Budget | Sequence[Budget] | None = None,
        reduction: str = 'mean',
        normalization: str = 'none',
    ) -> None:
        owner = type(self).__name__
        self.budget = budget if isinstance(budget, Budget | None) else Tightest(budget)
        self.reduction = check_name(reduction, 'reduction', owner, REDUCTIONS)
        self.normalization = check_name(normalization, 'normalization', owner, NORMALIZATIONS)

    def __init_subclass__(cls, **defaults: Any) -> None:
        super().__init_subclass__(**defaults)
        # Check the result of every select(), whoever calls it.
        if 'select' in vars(cls):
            cls.select = _with_checked_result(cls.select)  # type: ignore[method-assign]

    def score(self, graph: ChannelGraph, context: Context) -> dict[str, Tensor]:
        """Return group name -> scores, higher = keep.

        A tensor has shape ``(units,)``, or ``(layers, units)`` with a row for each coupled layer.
        :attr:`reduction` combines the rows.
        """
        raise NotImplementedError(f'{type(self).__name__} implements neither score() nor select()')

    def select(self, graph: ChannelGraph, context: Context) -> Masks:
        """Return the masks; by default the budget makes them from :meth:`ranking_scores`."""
        budget = self.needed_budget()
        with explained_without_values(graph.model, type(self).__name__):
            masks = budget(self.ranking_scores(graph, context), graph, context)
        return _checked_masks(masks, f'the budget {type(budget).__name__}')

    def ranking_scores(self, graph: ChannelGraph, context: Context) -> Scores:
        """Return :meth:`score`, reduced and normalized: group -> ``(units,)``, higher = keep.

        Raises:
            PluginError: :meth:`score` returns something other than scores of this graph.
            EasyPrunerError: a score is NaN, or scores cannot be normalized.
        """
        scores = checked_scores(self.score(graph, context), graph, type(self).__name__)
        return normalize(reduce_layers(scores, self.reduction), self.normalization)

    def dry_run(self, graph: ChannelGraph, context: Context) -> None:
        """Raise the errors that :meth:`select` would raise on a network before its training.

        It is called before a run starts. By default it calls the budget with equal scores, and
        :meth:`score` if that needs only the graph.
        """
        ranks = type(self).select is MaskSource.select
        if ranks:
            self._trial_scores(graph, context)
        budget = self.needed_budget() if ranks else self.budget
        if budget is not None:
            scores = Scores({n: torch.ones(group.size) for n, group in graph.groups.items()})
            budget(scores, graph, context)

    def margin(self, graph: ChannelGraph, context: Context) -> float | None:
        """Return how far the lowest score of a network is above the threshold of the budget.

        Returns:
            the distance in the unit of the scores; None if the budget has no threshold, or if
            scores cannot be computed from the graph alone.
        """
        if self.budget is None or type(self).select is not MaskSource.select:
            return None
        scores = self._trial_scores(graph, context)
        if scores is None:
            return None
        reduced = normalize(reduce_layers(scores, self.reduction), self.normalization)
        return self.budget.margin(reduced, graph)

    def _trial_scores(self, graph: ChannelGraph, context: Context) -> dict[str, Tensor] | None:
        """Return the scores of a network if :meth:`score` needs only the graph, or None.

        Raises:
            PluginError: :meth:`score` returns something other than scores of this graph.
        """
        try:
            # Work on copies: a run must not depend on what a trial leaves behind.
            source, model = copy.deepcopy(self), copy_of(graph.model)
            with fixed_seed(context.seed):
                scores = source.score(graph.on(model), context)
        except Exception:
            # The source may need data, or trained weights.
            return None
        return checked_scores(scores, graph, type(self).__name__)

    @classmethod
    def takes_budget(cls) -> bool:
        """Tell whether the constructor takes a budget; a source that reads masks has none."""
        parameters = inspect.signature(cls).parameters
        return 'budget' in parameters or any(
            parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()
        )

    def needed_budget(self) -> Budget:
        """Return the budget.

        Raises:
            ConfigError: the source has no budget.
        """
        if self.budget is None and not self.takes_budget():
            raise ConfigError(
                f'{type(self).__name__} does not take a budget: it always returns its whole masks, '
                'and cannot remove the channels in several steps; use a source that ranks channels'
            )
        if self.budget is None:
            raise ConfigError(
                f'{type(self).__name__} ranks channels and needs a budget; '
                "add budget=dict(type='Macs', keep=0.5) or another"
            )
        return self.budget


def checked_scores(scores: Any, graph: ChannelGraph, source: str) -> dict[str, Tensor]:
    """Check the result of a source's score(); return it with integers and bools as floats.

    Args:
        scores: the value that score() returned.
        graph: the channel graph of the network that was scored.
        source: the class name of the source, for messages.

    Raises:
        PluginError: it is not a mapping of group name -> tensor of shape ``(units,)`` or
            ``(layers, units)``.
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
        advice = '' if isinstance(score, Tensor) else '; convert it with torch.as_tensor'
        raise PluginError(
            f'{owner} returned {describe(score)} for group {name!r} of {size} units; expected a '
            f'tensor of real numbers of shape ({size},) or (layers, {size}){advice}'
        )
    return score if score.is_floating_point() else score.double()


def _with_checked_result(select: Callable[..., Any]) -> Callable[..., Masks]:
    """Return a select() that checks its result."""

    @functools.wraps(select)
    def checked(self: MaskSource, graph: ChannelGraph, *args: Any, **kwargs: Any) -> Masks:
        owner = type(self).__name__
        with explained_without_values(graph.model, owner):
            masks = select(self, graph, *args, **kwargs)
        return _checked_masks(masks, f'{owner}.select()')

    return checked


def _checked_masks(masks: Any, owner: str) -> Masks:
    if not isinstance(masks, Masks):
        raise PluginError(
            f'{owner} returned {describe(masks)}; expected easypruner.Masks, as in '
            'Masks({group name: bool tensor, True = keep})'
        )
    return masks
