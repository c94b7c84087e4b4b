"""Budget: a threshold for all scores."""

from __future__ import annotations

from typing import ClassVar

from easypruner import Budget, Context, Masks, Scores, hookimpl
from easypruner.base.checks import check_number
from easypruner.graph import ChannelGraph
from easypruner.strategies.budgets.ranking import within_limits


class Threshold(Budget):
    """Keeps the units whose score is above ``value``, and those that a group's limits require.

    If limits allow only some widths (``round_to``), a group keeps the next larger one.

    Use when:
        Scores have a meaning of their own, such as batch norm scales that a penalty has brought to
        zero: then the gap between both kinds of channels fixes the number of removed ones.

    Fails when:
        A certain size or speed is required, because the number of removed channels is not known in
        advance. Scores of another source or normalization have another scale.

    Values:
        MaskSparsity uses 0.01 on batch norm scales.

    Args:
        value: the threshold, in the unit of the scores.
    """

    example_arguments: ClassVar = {'value': 0.5}

    def __init__(self, value: float) -> None:
        self.value = check_number(value, 'value', 'Threshold')

    def __call__(self, scores: Scores, graph: ChannelGraph, context: Context) -> Masks:
        return within_limits(Scores.of(scores).above(self.value), scores, graph.limits)

    def margin(self, scores: Scores, graph: ChannelGraph) -> float | None:
        return min((float(score.min()) - self.value for score in scores.values()), default=None)

    @property
    def asked(self) -> float:
        return self.value

    def delivered(self, masks: Masks, graph: ChannelGraph) -> float:
        return self.value


easypruner_components = hookimpl(lambda: [Threshold])
