"""Mask source: the magnitude of whole coupled groups (DepGraph; Fang et al., 2023, 2301.12900)."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from easypruner import Budget, Component, Context, MaskSource, hookimpl
from easypruner.graph import ChannelGraph, Member
from easypruner.strategies.measures.units import score_units, unit_sums, value, wide


class Group(MaskSource):
    """Scores a unit by the squared L2 norm of everything that goes with it.

    ``I_u = sum of ||w[u]||_2^2`` over all parameters w of the coupled layers: the weights that
    make the unit's channels and those that read them, norm scales and biases. Across groups the
    paper ranks ``N * I_u / sum of the top N of the group's``; with N all units of the group, as
    here, that is the normalization ``'mean'``. A weight that belongs to a unit in two dimensions
    counts in both.

    Args:
        budget: how much may stay.
        normalization: across groups.
    """

    def __init__(self, budget: Budget | None = None, normalization: str = 'mean') -> None:
        super().__init__(budget, normalization=normalization)

    def score(self, graph: ChannelGraph, context: Context) -> dict[str, Tensor]:
        def squares(member: Member) -> Tensor:
            return unit_sums(wide(value(graph, member)).square(), member)

        return score_units(graph, 'group', squares)


@hookimpl
def easypruner_components() -> Iterable[type[Component]]:
    return [Group]
