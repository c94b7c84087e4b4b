"""Mask source: the magnitude of whole coupled groups (DepGraph; Fang et al., 2023, 2301.12900)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from easypruner import Budget, Context, MaskSource, hookimpl
from easypruner.graph import ChannelGraph
from easypruner.strategies.measures.units import score_units, unit_squares


class Group(MaskSource):
    """Scores a unit by the squared L2 norm of all parameters that are removed with it.

    ``I_u = sum of ||w[u]||_2^2`` over all parameters w of the coupled layers: the weights that
    produce the unit's channels, the weights that read them, norm scales and biases. The
    paper compares groups by ``N * I_u / sum of the N largest of the group``. With N as the number
    of units, this is the normalization ``'mean'``. A weight that belongs to a unit in two
    dimensions counts in both.

    Use when:
        Many layers are coupled, as in residual and dense networks or transformers, or the network
        has no batch norm. The paper applies it after training with the penalty that
        ``GroupLasso(over='group', alpha=4)`` computes.

    Fails when:
        The network was not trained with such a penalty: then the score is a plain magnitude, with
        the limits of ``L2Norm``.

    Values:
        The default normalization with a budget that ranks all groups together, such as ``Macs``.
    """

    def __init__(
        self, budget: Budget | Sequence[Budget] | None = None, normalization: str = 'mean'
    ) -> None:
        super().__init__(budget, normalization=normalization)

    def score(self, graph: ChannelGraph, context: Context) -> dict[str, Tensor]:
        return score_units(graph, 'group', partial(unit_squares, graph))


easypruner_components = hookimpl(lambda: [Group])
