"""Mask source: the magnitude of batch norm scales (Liu et al., 2017, arXiv 1708.06519)."""

from __future__ import annotations

import torch
from torch import Tensor

from easypruner import Context, MaskSource, hookimpl
from easypruner.errors import EasyPrunerError
from easypruner.graph import ChannelGraph


class BNScale(MaskSource):
    """Scores a unit by |gamma|, the batch norm scales of its channels (network slimming).

    Each batch norm of a group is one of the coupled layers that ``reduction`` combines. Groups
    without a batch norm are not scored and stay whole.

    Use when:
        Batch norms follow the layers to prune, and a penalty on their scales has been part of the
        training: ``GlobalSparsity`` as in the paper, or ``Polarization``. MaskSparsity selects in
        this way, and then pushes only the selected channels.

    Fails when:
        No penalty was applied: then the scales hardly differ, and say little about a channel,
        because the weights that read it can undo its scale. The budget cannot be met if too many
        groups are without a batch norm.

    Values:
        The paper removes 40 % to 70 % of the channels on CIFAR, with one threshold for the whole
        network, as ``Ratio`` and ``Macs`` do. The released MaskSparsity code combines coupled
        layers by ``reduction='vote'``.
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
                f'BNScale ranks channels by their batch norm scales, but no group of this '
                f'{type(graph.model).__name__} has any; use a source that reads weights, '
                'such as L1Norm'
            )
        return scores


easypruner_components = hookimpl(lambda: [BNScale])
