"""Budget: a share of the units."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from easypruner import Budget, Component, Context, Masks, hookimpl
from easypruner.base.checks import check_name, check_share
from easypruner.errors import BudgetError, ConfigError
from easypruner.graph import ChannelGraph
from easypruner.graph.coupling.patterns import first_fitting
from easypruner.strategies.budgets.costs import WHOLE, Step
from easypruner.strategies.budgets.ranking import NO_LIMITS, Ranking, keep_best
from easypruner.strategies.budgets.scopes import SCOPES, scopes_of
from easypruner.strategies.scores import Scores


class Ratio(Budget):
    """Keeps a share of the units: the best of the whole network, or of each scope.

    A group keeps what its limits ask for, and its best unit in any case. Where they allow only some
    widths (``round_to``), the whole network is left with ``keep`` or less, by less than one step
    of a group; with another scope each is left with what is nearest. Where they leave no way to
    get there, ``'global'`` raises a BudgetError that says what can be had. Each of several scopes
    comes as near as it can instead, and what was delivered says how far that is.

    Args:
        keep: the share of units that stays, in 0..1; or a dict of such shares for paths, globs or
            names of groups, of which the first that fits counts: each group is then ranked by
            itself, and one that none fits stays whole.
        scope: which groups are ranked together: ``'global'`` all, ``'layer'`` none, ``'stage'``
            those of the same spatial extent, ``'isomorphic'`` those made of the same parts. By
            default ``'global'``; of a dict of shares always ``'layer'``.
    """

    def __init__(self, keep: float | Mapping[str, float], scope: str | None = None) -> None:
        by_group = isinstance(keep, Mapping)
        if scope is None:
            scope = 'layer' if by_group else 'global'
        check_name(scope, 'scope', 'Ratio', SCOPES)
        if isinstance(keep, Mapping):
            if not keep or scope != 'layer':
                raise ConfigError(
                    f'keep={dict(keep)!r} with scope={scope!r} of Ratio is not understood; '
                    "a dict names groups, each to be ranked by itself (scope='layer')"
                )
            for pattern, value in keep.items():
                check_share(value, f'keep[{pattern!r}]', 'Ratio')
        else:
            check_share(keep, 'keep', 'Ratio')
        self.keep = keep
        self.scope = scope
        self._step = WHOLE

    def __call__(self, scores: Scores, graph: ChannelGraph, context: Context) -> Masks:
        if self.scope == 'layer':
            return self._each(scores, graph)
        masks: dict[str, Tensor] = {}
        for names in scopes_of(graph, self.scope):
            masks |= self._together({n: scores[n] for n in names if n in scores}, graph)
        return Masks({name: masks[name] for name in scores})

    def _each(self, scores: Mapping[str, Tensor], graph: ChannelGraph) -> Masks:
        """Cut each group by itself."""
        shares = self._shares(graph)
        masks = {}
        for name, score in scores.items():
            kept = self._goal(shares[name], {name: score}) if name in shares else score.numel()
            masks[name] = keep_best(score, kept, graph.limits.get(name, NO_LIMITS))
        return Masks(masks)

    def _together(self, scores: Mapping[str, Tensor], graph: ChannelGraph) -> Masks:
        """Cut groups that are ranked together."""
        assert not isinstance(self.keep, Mapping)
        if self.scope != 'global' and len(scores) == 1:
            # One group needs no ranking, and most scopes of a deep network are of one.
            ((name, score),) = scores.items()
            limits = graph.limits.get(name, NO_LIMITS)
            return Masks({name: keep_best(score, self._goal(self.keep, scores), limits)})
        ranking = Ranking.of(scores, graph.limits)
        units = sum(ranking.sizes)
        goal = self._goal(self.keep, scores, self._gone(graph) if self.scope == 'global' else {})
        least = units - len(ranking.order)
        if self.scope == 'global' and goal < least:
            raise BudgetError(
                f'Ratio(keep={self.keep}) asks for {goal} of {units} units, but each of '
                f'the {len(ranking.names)} groups keeps its best unit, or what its limits say; '
                f'keep={least / units:.4f} is the least that can be had'
            )
        return ranking.keeping(goal, or_more=self.scope != 'global')

    def _goal(
        self, keep: float, scores: Mapping[str, Tensor], gone: Mapping[str, int] | None = None
    ) -> int:
        """Return how many of some groups' units are to stay after this step.

        Args:
            keep: the share that stays in the end.
            scores: of the groups.
            gone: groups that have a single unit left, which counts with these, by their units
                before the first step.
        """
        units = sum(score.numel() for score in scores.values())
        if self._step.reference is None:
            return round(self._step.share_at_hand(keep) * units)
        gone = gone or {}
        start = sum(self._start(n, s.numel()) for n, s in scores.items()) + sum(gone.values())
        return min(round(self._step.share_of_start(keep) * start) - len(gone), units)

    def _start(self, name: str, units: int) -> int:
        """Return the units of a group before the first step, where these are known."""
        reference = self._step.reference
        return units if reference is None else int(reference['units'].get(name, units))

    def _gone(self, graph: ChannelGraph) -> dict[str, int]:
        """Return the units, before the first step, of groups that were cut to a single channel.

        Such are no groups any more.
        """
        known = {} if self._step.reference is None else self._step.reference['units']
        return {name: units for name, units in known.items() if name not in graph.groups}

    def _shares(self, graph: ChannelGraph) -> Mapping[str, float]:
        """Return group -> the share that stays in the end; one that stays whole is left out."""
        if not isinstance(self.keep, Mapping):
            return dict.fromkeys(graph.groups, self.keep)
        if self._step.reference is not None:
            known: Mapping[str, float] = self._step.reference['keep']
            return known
        return first_fitting(self.keep, graph.groups, 'keep of Ratio')

    def _wanted(self, keep: float) -> float:
        """Return a share of the units that :meth:`delivered` counts."""
        return keep if self._step.reference is not None else self._step.share_at_hand(keep)

    @property
    def asked(self) -> float:
        """The share that stays; of a dict, the least of its shares."""
        keep = min(self.keep.values()) if isinstance(self.keep, Mapping) else self.keep
        return self._wanted(keep)

    def asked_of(self, masks: Masks, graph: ChannelGraph) -> float:
        """Return the share of all units that is to stay."""
        if not isinstance(self.keep, Mapping) or not masks:
            return self.asked
        shares = self._shares(graph)
        start = {n: self._start(n, mask.numel()) for n, mask in masks.items()} | self._gone(graph)
        kept = sum(n * self._wanted(shares.get(name, 1.0)) for name, n in start.items())
        return kept / sum(start.values())

    def delivered(self, masks: Masks, graph: ChannelGraph) -> float:
        gone = self._gone(graph)
        start = sum(self._start(n, m.numel()) for n, m in masks.items()) + sum(gone.values())
        kept = sum(masks.kept(name) for name in masks) + len(gone)
        return kept / start if start else 1.0

    def reference(self, graph: ChannelGraph) -> Any:
        """Return the units of each group, and the share of each that stays in the end."""
        units = {name: group.size for name, group in graph.groups.items()}
        return {'units': units, 'keep': dict(self._shares(graph))}

    def partial(self, done: float, share: float, reference: Any = None) -> Budget:
        part = copy.copy(self)
        part._step = Step(done, share, reference)
        return part

    @classmethod
    def example(cls, graph: ChannelGraph, folder: Path) -> Mapping[str, Any]:
        return {'keep': 0.6}


@hookimpl
def easypruner_components() -> Iterable[type[Component]]:
    return [Ratio]
