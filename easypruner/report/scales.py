"""Batch-norm scales and channel counts of kept and removed channels, for tables and pictures."""

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
    """Magnitudes of batch-norm scales, split by what the masks say of their channels.

    Attributes:
        kept: shape ``(channels,)``, float64.
        removed: shape ``(channels,)``, float64.
    """

    kept: NDArray[np.float64]
    removed: NDArray[np.float64]

    def removed_stats(self) -> ScaleStats | None:
        """Return the statistics of the removed scales; None where none is removed."""
        if not self.removed.size:
            return None
        median, p99 = np.percentile(self.removed, [50, 99])
        return ScaleStats(
            count=int(self.removed.size),
            median=float(median),
            p99=float(p99),
            largest=float(self.removed.max()),
        )


@dataclass(frozen=True)
class LayerChannels:
    """How many output channels of one layer stay and go.

    Attributes:
        name: dotted name of the layer.
        kept: output channels that stay.
        removed: output channels that go.
    """

    name: str
    kept: int
    removed: int


def gather_scales(
    graph: ChannelGraph,
    masks: Mapping[str, Tensor],
    state_dict: Mapping[str, Tensor] | None = None,
) -> Scales:
    """Collect |gamma| of every batch norm that belongs to a group.

    Batch norms that cannot be pruned belong to no group and are left out.

    Args:
        graph: the channel graph that ``masks`` were made for.
        masks: group -> bool tensor ``(units,)``, True = keep; other groups are kept whole.
        state_dict: weights of the unpruned network, by the graph's parameter names; by default
            the graph's own model's.

    Raises:
        EasyPrunerError: ``state_dict`` lacks a batch norm or has it with too few channels, or a
            scale is not finite.
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
                    f'the batch-norm scale {member.param!r} holds values that are not finite: '
                    'training diverged; lower its learning rate or the strength'
                )
            keep = torch.ones(len(values), dtype=torch.bool) if mask is None else mask.cpu()
            kept.append(values[keep].flatten())
            removed.append(values[~keep].flatten())
    return Scales(kept=_join(kept), removed=_join(removed))


def joined(scales: Sequence[Scales]) -> Scales:
    """Return the removed scales of several cuts together, and the kept ones of the last."""
    removed = np.concatenate([part.removed for part in scales])
    return Scales(kept=scales[-1].kept, removed=removed)


def layer_channels(graph: ChannelGraph, masks: Mapping[str, Tensor]) -> tuple[LayerChannels, ...]:
    """Count the kept and removed output channels of every convolution and linear in a group.

    Args:
        graph: the channel graph that ``masks`` were made for.
        masks: group -> bool tensor ``(units,)``, True = keep; other groups are kept whole.

    Returns:
        the layers in the order in which the model runs them.
    """
    outputs = {
        (member.param, member.dim)
        for group in graph.groups.values()
        for member in group.members
        if member.role == 'out' and member.operand in _LAYER_WEIGHTS
    }
    order = {param: place for place, param in enumerate(graph.operands)}
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
            f'the weights have no batch-norm scale {param!r}, which the channel graph names; '
            'give the weights of the network the graph was traced on'
        )
    if tensor.dim() != 1 or len(tensor) < channels:
        raise EasyPrunerError(
            f'the batch-norm scale {param!r} has shape {tuple(tensor.shape)} in the weights; '
            f'the channel graph reads {channels} channels of it: give weights from before the cut'
        )
    return tensor


def _join(parts: list[Tensor]) -> NDArray[np.float64]:
    return torch.cat(parts).numpy() if parts else np.empty(0)
