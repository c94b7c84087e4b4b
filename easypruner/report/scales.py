"""Batch-norm scales and channel counts of kept and removed channels, for reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from easypruner.errors import EasyPrunerError
from easypruner.graph import ChannelGraph
from easypruner.report.result import ScaleStats

SCALE = 'batch_norm.weight'
_LAYER_WEIGHTS = ('convolution.weight', 'linear.weight')


@dataclass(frozen=True, eq=False)
class Scales:
    """Magnitudes of batch-norm scales.

    Attributes:
        kept: the scales of kept channels, of shape ``(channels,)``, float64.
        removed: the scales of removed channels, of shape ``(channels,)``, float64.
    """

    kept: NDArray[np.float64]
    removed: NDArray[np.float64]

    def removed_stats(self) -> ScaleStats | None:
        """Return the statistics of the removed scales; None if there are none."""
        if not self.removed.size:
            return None
        median, p99, largest = np.percentile(self.removed, [50, 99, 100]).tolist()
        return ScaleStats(self.removed.size, median, p99, largest)


@dataclass(frozen=True)
class LayerChannels:
    """The numbers of kept and removed output channels of a layer.

    Attributes:
        name: the dotted name of the layer.
        kept: the number of kept output channels.
        removed: the number of removed output channels.
    """

    name: str
    kept: int
    removed: int


def gather_scales(
    graph: ChannelGraph,
    masks: Mapping[str, Tensor],
    state_dict: Mapping[str, Tensor] | None = None,
) -> Scales:
    """Collect the scales |gamma| of every batch norm in a group.

    Batch norms that cannot be pruned are not in a group and are left out.

    Args:
        graph: the channel graph of the masks.
        masks: group -> bool tensor of shape ``(units,)``, True = keep. Other groups are kept.
        state_dict: the weights of the unpruned network; None for those of the graph's model.

    Raises:
        EasyPrunerError: ``state_dict`` has no such batch norm or too few channels, or a scale is
            not finite.
    """
    kept: list[Tensor] = []
    removed: list[Tensor] = []
    for name, group in graph.groups.items():
        mask = masks.get(name)
        for member in group.members:
            if member.operand != SCALE:
                continue
            parameter = (
                graph.parameter(member.param)
                if state_dict is None
                else _lookup(state_dict, member.param, int(member.index.max()) + 1)
            )
            values = parameter.detach().abs().double().cpu()[member.index.cpu()]
            if not bool(values.isfinite().all()):
                raise EasyPrunerError(
                    f'the batch-norm scale {member.param!r} has values that are not finite: '
                    'training diverged; reduce the learning rate or the strength'
                )
            keep = torch.ones(len(values), dtype=torch.bool) if mask is None else mask.cpu()
            kept.append(values[keep].flatten())
            removed.append(values[~keep].flatten())
    return Scales(kept=_join(kept), removed=_join(removed))


def joined(scales: Sequence[Scales]) -> Scales:
    """Return the removed scales of all cuts, and the kept scales of the last cut."""
    return Scales(scales[-1].kept, np.concatenate([part.removed for part in scales]))


def layer_channels(graph: ChannelGraph, masks: Mapping[str, Tensor]) -> tuple[LayerChannels, ...]:
    """Count the kept and removed output channels of every convolution and linear layer in a group.

    Args:
        graph: the channel graph of the masks.
        masks: group -> bool tensor of shape ``(units,)``, True = keep. Other groups are kept.

    Returns:
        the layers, in the order in which the model runs them.
    """
    outputs = {
        (member.param, member.dim)
        for group in graph.groups.values()
        for member in group.members
        if member.role == 'out' and member.operand in _LAYER_WEIGHTS
    }
    order = {param: position for position, param in enumerate(graph.operands)}
    kept = graph.keep(masks)
    layers = []
    for param, dim in sorted(outputs, key=lambda output: (order[output[0]], output[1])):
        size = graph.parameter(param).shape[dim]
        keep = kept.get((param, dim))
        stays = size if keep is None else int(keep.sum())
        layers.append(LayerChannels(param.rpartition('.')[0], stays, size - stays))
    return tuple(layers)


def _lookup(state_dict: Mapping[str, Tensor], param: str, channels: int) -> Tensor:
    tensor = state_dict.get(param)
    if tensor is None:
        raise EasyPrunerError(
            f'the weights have no batch-norm scale {param!r}, but the channel graph has; give the '
            'weights of the network that was traced'
        )
    if tensor.dim() != 1 or len(tensor) < channels:
        raise EasyPrunerError(
            f'the batch-norm scale {param!r} has shape {tuple(tensor.shape)} in the weights, but '
            f'the channel graph needs {channels} channels; give weights from before the cut'
        )
    return tensor


def _join(parts: list[Tensor]) -> NDArray[np.float64]:
    return torch.cat(parts).numpy() if parts else np.empty(0)
