"""Mask source: layer-adaptive magnitudes (LAMP; Lee et al., 2021, arXiv 2010.07611)."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from easypruner import Context, hookimpl
from easypruner.graph import ChannelGraph
from easypruner.strategies.measures.units import score_units, unit_squares
from easypruner.strategies.sources.bases import WeightSource
from easypruner.strategies.sources.scores import lamp_scores


class Lamp(WeightSource):
    """Scores a unit by its squared magnitude over that of all units that are not smaller.

    ``s_u = ||W_u||^2 / sum of ||W_v||^2 over all v not before u``, where the units of a layer are
    sorted by magnitude. This is the score of the paper, with units instead of single
    weights. The largest unit of each layer scores 1. Units of the same magnitude are ordered by
    their index, as in the paper.

    Use when:
        Layers should be ranked together by magnitude, without choosing a normalization. No layer
        can be emptied, because its largest unit has the highest score.

    Fails when:
        Magnitudes do not say which channels matter; see ``L1Norm``. The paper removes single
        weights, and does not evaluate whole channels.

    Values:
        A budget that ranks all groups together, such as ``Macs``, and the default
        ``normalization='none'``.
    """

    def score(self, graph: ChannelGraph, context: Context) -> dict[str, Tensor]:
        squares = score_units(graph, self.over, partial(unit_squares, graph))
        return {
            name: lamp_scores(s) if s.dim() == 1 else torch.stack([lamp_scores(row) for row in s])
            for name, s in squares.items()
        }


easypruner_components = hookimpl(lambda: [Lamp])
