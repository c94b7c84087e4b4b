"""Histories of Torch-Pruning: the cuts that were made, one after the other, as torch or JSON files.

``DependencyGraph.pruning_history()`` returns a list of (layer, whether its outputs were cut,
indices). The indices count the channels that the cuts before have left.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from easypruner.base.describe import describe
from easypruner.errors import MaskError
from easypruner.graph import ChannelGraph, Masks
from easypruner.strategies.sources.mask_files.contents import How
from easypruner.strategies.sources.mask_files.units import (
    Dimension,
    Places,
    Vote,
    output_dim,
    unknown_layer,
)

_KEYS = ('pruning_history', 'pruning')
"""Where a file may have the history beside weights; Torch-Pruning's own example uses the second."""
_LARGEST = 2**31


@dataclass(frozen=True)
class Cut:
    """One cut of a layer and all that is coupled with it.

    Attributes:
        layer: the dotted name of the layer.
        outputs: whether the indices are of its outputs, or of its inputs.
        indices: the channels that went.
    """

    layer: str
    outputs: bool
    indices: tuple[int, ...]


@dataclass(frozen=True)
class TorchPruningHistory:
    """The cuts of Torch-Pruning.

    Attributes:
        cuts: the cuts, in their order.
    """

    cuts: tuple[Cut, ...]
    kind: ClassVar[str] = 'a history of Torch-Pruning'
    only_widths: ClassVar[bool] = False

    @property
    def names(self) -> Collection[str]:
        return list(dict.fromkeys(cut.layer for cut in self.cuts))

    def renamed(self, names: Mapping[str, str]) -> TorchPruningHistory:
        return TorchPruningHistory(
            tuple(Cut(names[cut.layer], cut.outputs, cut.indices) for cut in self.cuts)
        )

    def fit(self, graph: ChannelGraph, earlier: Masks, how: How) -> Masks:
        places = Places(graph, earlier)
        modules = dict(graph.model.named_modules())
        for number, cut in enumerate(self.cuts):
            if cut.layer not in modules:
                raise unknown_layer(graph, cut.layer)
            label = f'entry {number} of the history (layer {cut.layer!r})'
            param, dim = _dimension(label, cut, modules[cut.layer])
            size = places.at(param, dim).size
            keep = _keep(label, cut, size, modules[cut.layer])
            places.apply(places.of([Vote(label, (param, dim), keep)], how.conflict))
        return places.earlier


def _dimension(label: str, cut: Cut, module: nn.Module) -> Dimension:
    """Return the dimension of a parameter that a cut counts in."""
    weight = getattr(module, 'weight', None)
    if not isinstance(weight, Tensor):
        raise MaskError(
            f'{label} is of a {type(module).__name__}, which has no weight of its own; expected a '
            'convolution, a linear layer, an embedding or a norm'
        )
    groups = getattr(module, 'groups', 1)
    depthwise = groups > 1 and groups == getattr(module, 'in_channels', None)
    output = output_dim(module)
    return (
        f'{cut.layer}.weight',
        output if cut.outputs or depthwise or weight.dim() < 2 else 1 - output,
    )


def _keep(label: str, cut: Cut, size: int, module: nn.Module) -> Tensor:
    """Return which indices of a dimension a cut keeps."""
    groups = getattr(module, 'groups', 1)
    # A grouped convolution counts the inputs of all its groups; its weight has those of one.
    most = size if cut.outputs else size * groups
    worst = max(cut.indices, default=0)
    if worst >= most:
        raise MaskError(
            f'{label} removes channel {worst}; the layer has {most} channels there; the history '
            'is that of a network with other widths, or its entries are not in their order'
        )
    keep = torch.ones(size, dtype=torch.bool)
    keep[[index % size for index in cut.indices]] = False
    return keep


def parse(content: Any, file: str) -> TorchPruningHistory:
    """Read a history.

    Args:
        content: the list that the file has, or a dictionary with it.
        file: the name of the file, for messages.

    Raises:
        MaskError: an entry is not (layer, whether its outputs were cut, indices).
    """
    entries = _entries(content)
    assert entries is not None
    return TorchPruningHistory(
        tuple(_cut(number, entry, file) for number, entry in enumerate(entries))
    )


def looks_like(content: Any) -> bool:
    """Tell whether a file's content is a list of lists, or has one under a known key."""
    entries = _entries(content)
    return entries is not None and all(_is_list(entry) for entry in entries[:1])


def _entries(content: Any) -> Sequence[Any] | None:
    if isinstance(content, Mapping):
        content = next((content[key] for key in _KEYS if key in content), None)
    return content if _is_list(content) else None


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _cut(number: int, entry: Any, file: str) -> Cut:
    fits = _is_list(entry) and len(entry) == 3
    layer, outputs, indices = entry if fits else (None, None, None)
    if not isinstance(layer, str) or not isinstance(outputs, bool) or not _are_indices(indices):
        raise MaskError(
            f'entry {number} of the history in {file!r} is {describe(entry)}; expected [layer, '
            'whether its outputs were cut, list of whole numbers from 0], as pruning_history() of '
            'Torch-Pruning returns it'
        )
    return Cut(layer, outputs, tuple(indices or ()))


def _are_indices(value: Any) -> bool:
    return _is_list(value) and all(type(index) is int and 0 <= index < _LARGEST for index in value)
