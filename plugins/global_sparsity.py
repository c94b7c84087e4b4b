"""Regularizer: L1 on all batch-norm scales (network slimming; Liu et al., arXiv 1708.06519)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from easypruner import Component, Masks, hookimpl
from easypruner.graph import ChannelGraph
from easypruner.scale_penalty import ScalePenalty, batch_norm_scales


class GlobalSparsity(ScalePenalty):
    """strength * sum of |gamma| over all batch-norm scales (equation 1 of the paper).

    Args:
        strength: lambda; 1e-4 or 5e-4 in practice. ``dict(reach=R)`` picks it from the schedule.
    """

    def pushed(self, graph: ChannelGraph, masks: Masks | None) -> dict[str, Tensor]:
        return {
            name: torch.ones(graph.parameter(name).shape, dtype=torch.bool)
            for name in batch_norm_scales(graph)
        }


@hookimpl
def easypruner_components() -> Iterable[type[Component]]:
    return [GlobalSparsity]
