"""Masks of NNI: a mask of 0 and 1 for each weight and bias of each layer, saved by torch."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from easypruner.base.describe import describe
from easypruner.errors import MaskError, nearest
from easypruner.graph import ChannelGraph, Masks
from easypruner.graph.recording.inventory import Inventory
from easypruner.strategies.sources.mask_files.contents import How
from easypruner.strategies.sources.mask_files.units import Places, Vote, output_dim, unknown_layer


@dataclass(frozen=True)
class NniMasks:
    """Masks of NNI.

    Attributes:
        masks: dotted name of a layer -> name of its parameter -> tensor of 0 and 1.
    """

    masks: Mapping[str, Mapping[str, Tensor]]
    kind: ClassVar[str] = 'masks of NNI'
    only_widths: ClassVar[bool] = False

    @property
    def names(self) -> Collection[str]:
        return self.masks

    def renamed(self, names: Mapping[str, str]) -> NniMasks:
        return NniMasks({names[layer]: masks for layer, masks in self.masks.items()})

    def fit(self, graph: ChannelGraph, earlier: Masks, how: How) -> Masks:
        places = Places(graph, earlier)
        modules, tensors = dict(graph.model.named_modules()), Inventory(graph.model).tensors
        votes: list[Vote] = []
        for layer, masks in self.masks.items():
            if layer not in modules:
                raise unknown_layer(graph, layer)
            for target, mask in masks.items():
                name = f'{layer}.{target}'
                if name not in tensors:
                    known = [t for t in tensors if t.startswith(f'{layer}.')]
                    raise MaskError(
                        f'the masks of layer {layer!r} have one of {target!r}; expected those of '
                        f'its parameters; {nearest(name, known)}'
                    )
                _check_shape(name, mask, places)
                votes += _votes(name, mask != 0, output_dim(modules[layer]))
        return places.of(votes, how.conflict)


def _check_shape(name: str, mask: Tensor, places: Places) -> None:
    shape = places.shape(name)
    if tuple(mask.shape) != shape:
        raise MaskError(
            f'the mask of {name!r} is of shape {list(mask.shape)}; expected {list(shape)}, that '
            'of the parameter; the masks are those of a network with other widths'
        )
    if not bool(((mask == 0) | (mask == 1)).all()):
        raise MaskError(f'the mask of {name!r} has other values than 0 and 1')


def _votes(name: str, keep: Tensor, output: int) -> Iterator[Vote]:
    """Yield the masks of the dimensions of a parameter in which whole channels are 0.

    Raises:
        MaskError: single elements are 0, and not whole channels.
    """
    if keep.dim() < 2:
        yield Vote(f'the mask of {name!r}', (name, 0), keep)
        return
    flat = keep.flatten(2) if keep.dim() > 2 else keep[..., None]
    kept = {0: flat.any(dim=2).any(dim=1), 1: flat.any(dim=2).any(dim=0)}
    whole = kept[0][:, None, None] & kept[1][None, :, None]
    single = int((flat != whole).sum())
    if single:
        raise MaskError(
            f'the mask of {name!r} is 0 at {single} elements of channels that it keeps; only whole '
            'channels can be removed, so prune them with a structured pruner of NNI'
        )
    for dim in (0, 1):
        # A mask of whole outputs says nothing of the inputs.
        if not bool(kept[dim].all()) or (dim == output and bool(keep.all())):
            yield Vote(f'the mask of {name!r} (dimension {dim})', (name, dim), kept[dim])


def parse(content: Mapping[Any, Any], file: str) -> NniMasks:
    """Read masks.

    Args:
        content: the dictionary that the file has.
        file: the name of the file, for messages.

    Raises:
        MaskError: it is not a dictionary of dictionaries of tensors.
    """
    masks: dict[str, dict[str, Tensor]] = {}
    for layer, own in content.items():
        if not isinstance(layer, str) or not isinstance(own, Mapping):
            raise MaskError(
                f'{file!r} has {describe(own)} for layer {layer!r}; expected, as NNI writes it, a '
                'dictionary of parameter -> mask for each layer'
            )
        masks[layer] = {}
        for target, mask in own.items():
            if mask is None:
                continue
            dense = (
                isinstance(mask, Tensor) and mask.layout is torch.strided and not mask.is_quantized
            )
            if not isinstance(target, str) or not dense or mask.is_complex() or not mask.dim():
                raise MaskError(
                    f'the mask of {target!r} of layer {layer!r} in {file!r} is {describe(mask)}; '
                    'expected a tensor of 0 and 1 in the shape of the parameter'
                )
            masks[layer][target] = mask
    return NniMasks(masks)


def looks_like(content: Any) -> bool:
    """Tell whether a file's content is a dictionary of dictionaries."""
    return isinstance(content, Mapping) and any(
        isinstance(own, Mapping) for own in content.values()
    )
