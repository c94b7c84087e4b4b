"""Budget: a threshold for each group."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from easypruner import Budget, Component, Context, Masks, Scores, hookimpl
from easypruner.base.checks import check_number, refuse
from easypruner.graph import ChannelGraph
from easypruner.graph.coupling.patterns import first_fitting
from easypruner.strategies.budgets.ranking import within_limits


class GroupThreshold(Budget):
    """Keeps the units whose score is above the threshold of their group.

    Layers differ in what their scores mean: a scale of 0.01 is nothing in a wide layer, and much
    behind a layer that doubles it. Groups without a threshold stay whole. Of each other, what its
    limits ask for stays, and its best unit in any case.

    Args:
        values: path, glob or name of groups -> threshold, in the unit of the scores; the first
            that fits counts, and ``'*'`` fits all.
    """

    def __init__(self, values: Mapping[str, float]) -> None:
        if not isinstance(values, Mapping) or not values:
            what = "a dict of group -> threshold, such as {'layer1.*': 0.01, '*': 0.05}"
            refuse(values, 'values', 'GroupThreshold', what)
        for pattern, value in values.items():
            check_number(value, f'values[{pattern!r}]', 'GroupThreshold')
        self.values = dict(values)
        self._fitted: frozenset[str] = frozenset()

    def __call__(self, scores: Scores, graph: ChannelGraph, context: Context) -> Masks:
        what = 'values of GroupThreshold'
        thresholds = first_fitting(self.values, graph.groups, what, self._fitted)
        # A group that later steps of a run cut to one channel is no longer a group.
        self._fitted = frozenset(self.values)
        concerned = Scores.of(scores).only(name for name in scores if name in thresholds)
        return within_limits(concerned.above(thresholds), concerned, graph.limits)

    @property
    def asked(self) -> float:
        """The lowest threshold."""
        return min(self.values.values())

    def delivered(self, masks: Masks, graph: ChannelGraph) -> float:
        return self.asked

    @classmethod
    def example(cls, graph: ChannelGraph, folder: Path) -> Mapping[str, Any]:
        return {'values': {'*': 0.5}}


@hookimpl
def easypruner_components() -> Iterable[type[Component]]:
    return [GroupThreshold]
