"""Budget: every unit whose score is above a threshold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from easypruner import Budget, Component, Context, Masks, hookimpl
from easypruner.base.checks import check_number
from easypruner.graph import ChannelGraph
from easypruner.strategies.budgets.ranking import within_limits
from easypruner.strategies.scores import Scores


class Threshold(Budget):
    """Keeps the units whose score is above ``value``, and of each group what its limits ask for.

    All of those stay: where limits allow only some widths (``round_to``), it is the next one up.

    Args:
        value: any number, in the unit of the scores; MaskSparsity uses 0.01 on batch-norm scales.
    """

    def __init__(self, value: float) -> None:
        self.value = check_number(value, 'value', 'Threshold')

    def __call__(self, scores: Scores, graph: ChannelGraph, context: Context) -> Masks:
        return within_limits(Scores.of(scores).above(self.value), scores, graph.limits)

    @property
    def asked(self) -> float:
        return self.value

    def delivered(self, masks: Masks, graph: ChannelGraph) -> float:
        return self.value

    @classmethod
    def example(cls, graph: ChannelGraph, folder: Path) -> Mapping[str, Any]:
        return {'value': 0.5}


@hookimpl
def easypruner_components() -> Iterable[type[Component]]:
    return [Threshold]
