"""Mask source: the magnitude of batch-norm scales (Liu et al., 2017, arXiv 1708.06519)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from easypruner import Component, Context, MaskSource, hookimpl
from easypruner.errors import EasyPrunerError
from easypruner.graph import ChannelGraph


class BNScale(MaskSource):
    """Scores a unit by |gamma|, the batch-norm scales of its channels (network slimming).

    Each batch norm of a group is one of the coupled layers that ``reduction`` combines. Groups
    without a batch norm are not scored and stay whole.

    Args:
        budget: how much may stay.
        reduction: over the batch norms of a group; ``'vote'`` is the released MaskSparsity
            code's rule.
        normalization: across groups.
    """

    def score(self, graph: ChannelGraph, context: Context) -> dict[str, Tensor]:
        scores: dict[str, Tensor] = {}
        for name, group in graph.groups.items():
            layers = [
                graph.parameter(member.param).detach().abs().cpu()[member.index].mean(dim=1)
                for member in group.members
                if member.operand == 'batch_norm.weight'
            ]
            if layers:
                scores[name] = torch.stack(layers)
        if not scores:
            raise EasyPrunerError(
                f'BNScale ranks channels by their batch-norm scales, but no group of this '
                f'{type(graph.model).__name__} has any; use a source that reads weights, '
                'such as L1Norm'
            )
        return scores


@hookimpl
def easypruner_components() -> Iterable[type[Component]]:
    return [BNScale]
