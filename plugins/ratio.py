"""Budget: keeps a share of the units."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from easypruner import Context, Masks, Scores, hookimpl
from easypruner.base.checks import check_name, check_share
from easypruner.errors import BudgetError, ConfigError
from easypruner.graph import ChannelGraph
from easypruner.graph.coupling.patterns import first_fitting
from easypruner.strategies.budgets.costs import PortionedBudget
from easypruner.strategies.budgets.ranking import NO_LIMITS, SCOPES, Ranking, keep_best, scopes_of


class Ratio(PortionedBudget):
    """Keeps a share of the units: the best of the whole network, or of each scope.

    Each group keeps its best unit, and the units that its limits require. If limits allow only some
    widths (``round_to``), the whole network keeps at most ``keep``, and less by at most one step of
    a group; any other scope keeps the nearest possible share. If limits prevent the share,
    ``scope='global'`` raises a BudgetError with the lowest possible one. Any other scope comes as
    close as possible, and the delivered share is reported.

    Use when:
        The share of channels is given, as in many papers: the same for each layer
        (``scope='layer'``), or with one ranking of all channels (``'global'``). ``'isomorphic'``
        ranks only groups with the same parts together, as Isomorphic Pruning does (Fang et al.,
        2024, arXiv 2407.04616).

    Fails when:
        A certain compute or size is required: half of the channels may be a quarter of the MACs,
        or nearly all of them. ``'layer'`` ignores that layers differ in how much they can lose.

    Values:
        A ``keep`` of 0.5 to 0.7 for each layer in one cut. Start with ``'global'`` if the scores
        of groups are comparable, and with ``'layer'`` otherwise.

    Args:
        keep: the share of units that stays, from 0 to 1; or a dict of path, glob or name of groups
            -> share. With a dict, each group is ranked by itself; the first pattern that matches a
            group is used, and a group without a match stays whole.
        scope: which groups are ranked together: ``'global'`` (all groups), ``'layer'`` (each group
            by itself), ``'stage'`` (groups with maps of the same height and width) or
            ``'isomorphic'`` (groups with the same parts). The default is ``'global'``, and
            ``'layer'`` with a dict.
    """

    def __init__(self, keep: float | Mapping[str, float], scope: str | None = None) -> None:
        if scope is None:
            scope = 'layer' if isinstance(keep, Mapping) else 'global'
        check_name(scope, 'scope', 'Ratio', SCOPES)
        if isinstance(keep, Mapping):
            if not keep or scope != 'layer':
                raise ConfigError(
                    f'keep={dict(keep)!r} with scope={scope!r} of Ratio; expected a dict of group '
                    "-> share, with scope='layer', because each group is ranked by itself"
                )
            for pattern, value in keep.items():
                check_share(value, f'keep[{pattern!r}]', 'Ratio')
        else:
            check_share(keep, 'keep', 'Ratio')
        self.keep = keep
        self.scope = scope

    def __call__(self, scores: Scores, graph: ChannelGraph, context: Context) -> Masks:
        if self.scope == 'layer':
            return self._each(scores, graph)
        masks: dict[str, Tensor] = {}
        for names in scopes_of(graph, self.scope):
            masks |= self._together({n: scores[n] for n in names if n in scores}, graph)
        return Masks({name: masks[name] for name in scores})

    def _each(self, scores: Mapping[str, Tensor], graph: ChannelGraph) -> Masks:
        """Return the masks of groups that are ranked by themselves."""
        shares = self._shares(graph)
        masks = {}
        for name, score in scores.items():
            kept = self._target(shares[name], {name: score}) if name in shares else score.numel()
            masks[name] = keep_best(score, kept, graph.limits.get(name, NO_LIMITS))
        return Masks(masks)

    def _together(self, scores: Mapping[str, Tensor], graph: ChannelGraph) -> Masks:
        """Return the masks of groups that are ranked together."""
        assert not isinstance(self.keep, Mapping)
        if self.scope != 'global' and len(scores) == 1:
            # A single group needs no ranking; most scopes of a deep network have one group.
            ((name, score),) = scores.items()
            limits = graph.limits.get(name, NO_LIMITS)
            return Masks({name: keep_best(score, self._target(self.keep, scores), limits)})
        ranking = Ranking.of(scores, graph.limits)
        units = sum(ranking.sizes)
        is_global = self.scope == 'global'
        target = self._target(self.keep, scores, graph if is_global else None)
        least = units - len(ranking.order)
        if is_global and target < least:
            raise BudgetError(
                f'Ratio(keep={self.keep}) would keep {target} of {units} units, but each of '
                f'the {len(ranking.names)} groups keeps its best unit, or the units that its '
                f'limits require; keep={least / units:.4f} is the lowest possible'
            )
        return ranking.keeping(target, or_more=not is_global)

    def _target(
        self, keep: float, scores: Mapping[str, Tensor], graph: ChannelGraph | None = None
    ) -> int:
        """Return the number of units of some groups that stay after this cut.

        Args:
            keep: the share that stays after all cuts.
            scores: the scores of the groups.
            graph: the graph, if the groups that it no longer has are counted as well.
        """
        units = sum(score.numel() for score in scores.values())
        if self.portion.reference is None:
            return round(self.portion.share_at_hand(keep) * units)
        start = self._at_start(scores, graph)
        single = len(start) - len(scores)
        return min(round(self.portion.share_of_start(keep) * sum(start.values())) - single, units)

    def _at_start(self, groups: Mapping[str, Tensor], graph: ChannelGraph | None) -> dict[str, int]:
        """Return group -> number of units before the first cut.

        Args:
            groups: group -> tensor with an entry for each unit that is left.
            graph: adds the groups that were cut to one unit. Such a group is no longer in the
                graph, but its last unit still counts. None adds no groups.
        """
        known = {} if self.portion.reference is None else self.portion.reference['units']
        start = {name: int(known.get(name, t.numel())) for name, t in groups.items()}
        if graph is not None:
            start |= {name: units for name, units in known.items() if name not in graph.groups}
        return start

    def _shares(self, graph: ChannelGraph) -> Mapping[str, float]:
        """Return group -> the share that stays after all cuts, unless the group stays whole."""
        if not isinstance(self.keep, Mapping):
            return dict.fromkeys(graph.groups, self.keep)
        if self.portion.reference is not None:
            return self.portion.reference['keep']
        return first_fitting(self.keep, graph.groups, 'keep of Ratio')

    @property
    def asked(self) -> float:
        """The share that stays; of a dict, the lowest of its shares."""
        keep = min(self.keep.values()) if isinstance(self.keep, Mapping) else self.keep
        return self.portion.reported(keep)

    def asked_of(self, masks: Masks, graph: ChannelGraph) -> float:
        """Return the share of all units that should stay."""
        if not isinstance(self.keep, Mapping) or not masks:
            return self.asked
        shares = self._shares(graph)
        start = self._at_start(masks, graph)
        kept = sum(n * self.portion.reported(shares.get(name, 1.0)) for name, n in start.items())
        return kept / sum(start.values())

    def delivered(self, masks: Masks, graph: ChannelGraph) -> float:
        start = self._at_start(masks, graph)
        kept = sum(masks.kept(name) for name in masks) + len(start) - len(masks)
        return kept / sum(start.values()) if start else 1.0

    def reference(self, graph: ChannelGraph) -> Any:
        """Return the number of units of each group, and the share that stays after all cuts."""
        units = {name: group.size for name, group in graph.groups.items()}
        return {'units': units, 'keep': dict(self._shares(graph))}


easypruner_components = hookimpl(lambda: [Ratio])
