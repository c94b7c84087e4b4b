"""Layer masks: a mask for each layer, such as the released ones, as masks of groups."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from easypruner.errors import MaskError
from easypruner.graph import ChannelGraph, Masks, Member
from easypruner.strategies.measures.activations import makes_output, output_channels
from easypruner.strategies.sources.mask_files.contents import How
from easypruner.strategies.sources.mask_files.units import (
    check_split,
    combined,
    frozen_message,
    unknown_layer,
)


@dataclass(frozen=True)
class LayerMasks:
    """Masks of layers.

    Attributes:
        masks: dotted name of a layer -> bool tensor of its output channels, True = keep.
    """

    masks: Mapping[str, Tensor]
    kind: ClassVar[str] = 'masks of layers'
    only_widths: ClassVar[bool] = False

    @property
    def names(self) -> Collection[str]:
        return self.masks

    def renamed(self, names: Mapping[str, str]) -> LayerMasks:
        return LayerMasks({names[layer]: mask for layer, mask in self.masks.items()})

    def inverted(self) -> LayerMasks:
        """Return masks in which True means keep, from those in which it means remove."""
        return LayerMasks({layer: ~mask for layer, mask in self.masks.items()})

    def fit(self, graph: ChannelGraph, earlier: Masks, how: How) -> Masks:
        return Masks({**earlier, **to_groups(self.masks, graph, earlier, how.conflict)})


@dataclass(frozen=True)
class _OutputChannels:
    """The channels of a group that a layer produces.

    Attributes:
        group: the name of the group.
        index: ``(units, k)``: the channels of each unit in the output of the layer.
        left: ``(channels,)``: whether the earlier masks have left each channel of the output.
    """

    group: str
    index: Tensor
    left: Tensor


def to_groups(
    masks: Mapping[str, Tensor], graph: ChannelGraph, earlier: Masks, conflict: str
) -> Masks:
    """Convert masks of layers to masks of groups, over the units of ``graph``.

    A layer without a mask does not affect its group. A group without any masked layer is left out.

    Args:
        masks: the masks of layers of the network that remains after ``earlier``.
        graph: the channel graph of the network before ``earlier``.
        earlier: the masks of groups that were applied before.
        conflict: a name of ``CONFLICTS``.

    Raises:
        MaskError: the network does not have a layer, a layer has another number of channels or
            loses channels that cannot be removed, or coupled layers disagree while ``conflict``
            is ``'error'``.
    """
    before = graph.keep(earlier)
    of_groups: dict[str, dict[str, Tensor]] = {}
    for layer, mask in masks.items():
        outputs = _outputs(graph, layer, before)
        full = _over_all_channels(layer, mask, graph, outputs)
        frozen = ~full
        for output in outputs:
            frozen[output.index.flatten()] = False
            keep = _over_units(layer, full[output.index], output.group, conflict)
            of_groups.setdefault(output.group, {})[repr(layer)] = keep
        if bool(frozen.any()):
            label = f'the mask of layer {layer!r}'
            raise MaskError(frozen_message(graph, label, int(frozen.sum()), layer))
    return Masks({name: combined(name, found, conflict) for name, found in of_groups.items()})


def _outputs(
    graph: ChannelGraph, layer: str, before: Mapping[tuple[str, int], Tensor]
) -> list[_OutputChannels]:
    found = []
    for name, group in graph.groups.items():
        members = [m for m in group.members if m.module == layer and _is_output(graph, m)]
        if members:
            member = max(members, key=lambda m: graph.parameter(m.param).dim())
            index = output_channels(graph, member, graph.model.get_submodule(layer))
            size = graph.parameter(member.param).shape[member.dim]
            left = before.get((member.param, member.dim), torch.ones(size) > 0)
            # The weight of a grouped transposed convolution has the channels of one group only.
            repeats = index.shape[1] // member.index.shape[1]
            found.append(_OutputChannels(name, index, left.repeat(repeats)))
    return found


def _is_output(graph: ChannelGraph, member: Member) -> bool:
    """Tell whether a member holds channels of its layer's output."""
    weight = graph.parameter(member.param).dim() > 1
    module = graph.model.get_submodule(member.module)
    return member.role == 'out' and (not weight or makes_output(module, member))


def _over_all_channels(
    layer: str, mask: Tensor, graph: ChannelGraph, outputs: list[_OutputChannels]
) -> Tensor:
    """Return the mask of a layer, over the channels that it had before the earlier masks."""
    if not outputs:
        if layer not in dict(graph.model.named_modules()) or not layer:
            raise unknown_layer(graph, layer)
        return mask
    full = outputs[0].left.clone()
    left = int(full.sum())
    if mask.numel() != left:
        raise MaskError(_widths_message(layer, mask.numel(), left, full.numel()))
    return full.masked_scatter(full, mask)


def _widths_message(layer: str, entries: int, left: int, channels: int) -> str:
    earlier = f' left of {channels}' if left < channels else ''
    return (
        f'the mask of layer {layer!r} has {entries} entries; the layer has {left} channels'
        f'{earlier}; the masks are those of a network with other widths; if it was pruned from '
        'this one, give the masks of its cuts first: path=[EARLIER, THESE]'
    )


def _over_units(layer: str, channels: Tensor, group: str, conflict: str) -> Tensor:
    """Return the mask of a layer over units, from the mask of their channels ``(units, k)``."""
    keep = channels.any(dim=1)
    count = int((keep & ~channels.all(dim=1)).sum())
    check_split(f'layer {layer!r}', count, group, conflict)
    return keep
