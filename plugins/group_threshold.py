"""Budget: a threshold for each group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from easypruner import Budget, Context, Masks, Scores, hookimpl
from easypruner.base.checks import check_number, refuse
from easypruner.graph import ChannelGraph
from easypruner.graph.coupling.patterns import first_fitting
from easypruner.strategies.budgets.ranking import within_limits


class GroupThreshold(Budget):
    """Keeps the units whose score is above the threshold of their group.

    Groups without a threshold stay whole. Any other group keeps its best unit, and the units that
    its limits require.

    Use when:
        Layers differ in the meaning of their scores: a scale of 0.01 is nothing in a wide layer,
        but much behind a layer that amplifies it. The thresholds are known, for example from the
        histograms of a report.

    Fails when:
        A certain size or speed is required, because the number of removed channels is not known in
        advance.

    Values:
        Start from one threshold for all groups, ``{'*': 0.01}`` on batch norm scales, and put
        exceptions before it, because the first matching pattern is used.

    Args:
        values: path, glob or name of groups -> threshold, in the unit of the scores. The first
            pattern that matches a group is used; ``'*'`` matches all groups.
    """

    example_arguments: ClassVar = {'values': {'*': 0.5}}

    def __init__(self, values: Mapping[str, float]) -> None:
        if not isinstance(values, Mapping) or not values:
            expected = "a dict of group -> threshold, such as {'layer1.*': 0.01, '*': 0.05}"
            refuse(values, 'values', 'GroupThreshold', expected)
        for pattern, value in values.items():
            check_number(value, f'values[{pattern!r}]', 'GroupThreshold')
        self.values = dict(values)
        self._matched: frozenset[str] = frozenset()

    def __call__(self, scores: Scores, graph: ChannelGraph, context: Context) -> Masks:
        argument = 'values of GroupThreshold'
        thresholds = first_fitting(self.values, graph.groups, argument, self._matched)
        # After a cut, a pattern may match nothing: a group cut to one channel is not prunable.
        self._matched = frozenset(self.values)
        matched = Scores.of(scores).only(name for name in scores if name in thresholds)
        return within_limits(matched.above(thresholds), matched, graph.limits)

    def margin(self, scores: Scores, graph: ChannelGraph) -> float | None:
        argument = 'values of GroupThreshold'
        thresholds = first_fitting(self.values, graph.groups, argument, frozenset(self.values))
        known = scores.keys() & thresholds.keys()
        return min((float(scores[n].min()) - thresholds[n] for n in known), default=None)

    @property
    def asked(self) -> float:
        """The lowest threshold."""
        return min(self.values.values())

    def delivered(self, masks: Masks, graph: ChannelGraph) -> float:
        return self.asked


easypruner_components = hookimpl(lambda: [GroupThreshold])
