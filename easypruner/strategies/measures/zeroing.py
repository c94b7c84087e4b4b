"""Zeroing: sets the filters of removed channels to zero."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from easypruner.graph import ChannelGraph
from easypruner.graph.recording.parametrized import refresh, weight_norms


@torch.no_grad()
def zero(graph: ChannelGraph, masks: Mapping[str, Tensor], norms: bool = False) -> None:
    """Set the filters of the channels that ``masks`` remove to zero, in place.

    Args:
        graph: the channel graph of the model.
        masks: group -> bool tensor ``(units,)``, True = keep.
        norms: whether to set biases, and scales and biases of norms, to zero as well.
    """
    modules = dict(graph.model.named_modules())
    normed = {norm.direction: norm for norm in weight_norms(modules)}
    ratios = {
        norm: norm.ratio(graph.parameter(norm.length), graph.parameter(norm.direction))
        for norm in normed.values()
    }
    for name, mask in masks.items():
        group = graph.groups[name]
        for member in group.members if norms else group.producers:
            tensor = graph.parameter(member.param)
            norm = normed.get(member.param)
            # Under weight norm, set the length to zero, because a direction cannot be zero.
            if norm is not None and norm.dim == member.dim:
                continue
            if member.role == 'out' and isinstance(tensor, nn.Parameter):
                removed = member.index[~mask].flatten().to(tensor.device)
                tensor.index_fill_(member.dim, removed, 0.0)
                if norm is not None:
                    graph.parameter(norm.length).copy_(norm.rescaled(ratios[norm], tensor))
    refresh(modules.values())
