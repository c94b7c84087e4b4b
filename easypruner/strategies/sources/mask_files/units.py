"""Which unit is at each index of a parameter, and masks of units from those of indices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from easypruner.errors import MaskError, nearest
from easypruner.graph import ChannelGraph, Masks

Dimension = tuple[str, int]
"""A parameter or buffer, and a dimension of it."""


@dataclass(frozen=True)
class UnitsAt:
    """The units that have indices in one dimension of a parameter.

    Attributes:
        size: the number of indices.
        parts: group -> the indices that belong to it, and the unit of each.
    """

    size: int
    parts: Mapping[str, tuple[Tensor, Tensor]]

    def left(self, left: Tensor | None) -> UnitsAt:
        """Return the same after a cut.

        Args:
            left: which indices the cut leaves; None if all.
        """
        if left is None:
            return self
        number = left.cumsum(0) - 1
        parts = {
            group: (number[index[left[index]]], unit[left[index]])
            for group, (index, unit) in self.parts.items()
        }
        return UnitsAt(int(left.sum()), parts)

    def frozen(self) -> Tensor:
        """Return which indices belong to no unit."""
        frozen = torch.ones(self.size, dtype=torch.bool)
        for index, _ in self.parts.values():
            frozen[index] = False
        return frozen


@dataclass(frozen=True)
class Vote:
    """What one entry of a file says about the channels of a dimension.

    Attributes:
        label: what the entry is, such as ``"layer 'conv1'"``.
        dimension: the dimension.
        keep: ``(indices,)``, over those that earlier masks leave.
    """

    label: str
    dimension: Dimension
    keep: Tensor


class Places:
    """Where the units of a network are that earlier masks leave.

    Args:
        graph: the channel graph of the network before ``earlier``.
        earlier: the masks that were applied before.
    """

    def __init__(self, graph: ChannelGraph, earlier: Masks) -> None:
        self.graph = graph
        found: dict[Dimension, dict[str, tuple[Tensor, Tensor]]] = {}
        for name, group in graph.groups.items():
            for member in group.members:
                units = torch.arange(group.size).repeat_interleave(member.index.shape[1])
                parts = found.setdefault((member.param, member.dim), {})
                parts[name] = member.index.flatten(), units
        self._found = found
        self.apply(earlier)

    def apply(self, earlier: Masks) -> None:
        """Replace the earlier masks."""
        self.earlier = earlier
        self._left = self.graph.keep(earlier)

    def at(self, param: str, dim: int) -> UnitsAt:
        """Return the units in a dimension of a parameter that the network has."""
        size = self.graph.parameter(param).shape[dim]
        parts = self._found.get((param, dim), {})
        return UnitsAt(size, parts).left(self._left.get((param, dim)))

    def shape(self, param: str) -> tuple[int, ...]:
        """Return the shape of a parameter."""
        dims = range(self.graph.parameter(param).dim())
        return tuple(self.at(param, dim).size for dim in dims)

    def units_left(self, group: str) -> Tensor:
        """Return which units of a group the earlier masks leave."""
        mask = self.earlier.get(group)
        return torch.ones(self.graph.groups[group].size) > 0 if mask is None else mask

    def of(self, votes: Iterable[Vote], conflict: str) -> Masks:
        """Return the earlier masks together with those that votes make.

        Raises:
            MaskError: channels are removed that cannot be, or votes disagree on a unit while
                ``conflict`` is ``'error'``.
        """
        of_groups: dict[str, dict[str, Tensor]] = {}
        for vote in votes:
            param, dim = vote.dimension
            units = self.at(param, dim)
            count = int((units.frozen() & ~vote.keep).sum())
            if count:
                raise MaskError(frozen_message(self.graph, vote.label, count, param, dim))
            for group, (index, unit) in units.parts.items():
                size = self.graph.groups[group].size
                keep = _over_units(vote.label, vote.keep[index], unit, size, group, conflict)
                of_groups.setdefault(group, {})[vote.label] = keep
        found = {name: combined(name, masks, conflict) for name, masks in of_groups.items()}
        return Masks({**self.earlier, **found})


def frozen_message(
    graph: ChannelGraph, label: str, count: int, param: str, dim: int | None = None
) -> str:
    """Return the message for channels that are to go and cannot.

    Args:
        graph: the channel graph.
        label: the entry of the file, such as ``"the mask of layer 'conv1'"``.
        count: the number of channels.
        param: a parameter, or the path of a layer and a dot.
        dim: the dimension; None if it is not known.
    """
    reasons = (
        f.reason
        for f in graph.frozen
        if (
            f.param.rpartition('.')[0] == param if dim is None else (f.param, f.dim) == (param, dim)
        )
    )
    return f'{label} removes {count} channels that cannot be removed here: ' + next(
        reasons, 'no channel of this layer can be cut'
    )


def _over_units(
    label: str, keep: Tensor, unit: Tensor, size: int, group: str, conflict: str
) -> Tensor:
    """Return the mask of units ``(size,)``, from the mask of their indices."""
    kept, gone = torch.zeros(2, size, dtype=torch.bool)
    kept[unit[keep]] = True
    gone[unit[~keep]] = True
    check_split(label, int((kept & gone).sum()), group, conflict)
    return kept


def check_split(label: str, count: int, group: str, conflict: str) -> None:
    """Raise MaskError if an entry removes a part of some units, unless a conflict keeps them."""
    if conflict == 'error' and count:
        raise MaskError(
            f'{label} removes some channels of {count} units of group {group!r} and keeps others, '
            "but they can only be removed together; conflict='keep' keeps such units"
        )


def combined(group: str, masks: Mapping[str, Tensor], conflict: str) -> Tensor:
    """Return the mask of a group, which keeps a unit that any entry keeps.

    Args:
        group: the name of the group.
        masks: entry of the file -> ``(units,)``, True = keep.
        conflict: a name of :data:`CONFLICTS`.
    """
    (first, keep), *others = masks.items()
    for other, mask in others:
        different = int((keep != mask).sum())
        if conflict == 'error' and different:
            raise MaskError(
                f'{first} and {other} of group {group!r} are coupled, but their masks differ in '
                f"{different} of {keep.numel()} units; conflict='keep' removes a unit only if all "
                'of them do'
            )
    return torch.stack([*masks.values()]).any(dim=0)


def unknown_layer(graph: ChannelGraph, layer: str) -> MaskError:
    """Return the error for a layer that the network does not have, with advice."""
    known = [path for path, _ in graph.model.named_modules() if path]
    return MaskError(
        f'the masks name layer {layer!r}, which this {type(graph.model).__name__} does not '
        f'have; {_hint(layer, known)}'
    )


def _hint(layer: str, known: list[str]) -> str:
    first, _, rest = layer.partition('.')
    if rest not in known:
        return f'{nearest(layer, known)}; rename= maps names from other code'
    # Without the anchor a rule matches every part of a name.
    pattern = f'^{first}' if first in rest.split('.') else first
    return f"rename={{{pattern!r}: ''}} removes the {first!r} before {rest!r}"


def output_dim(module: nn.Module) -> int:
    """Return the dimension of a layer's weight in which its output channels are."""
    transposed = isinstance(module, _ConvNd) and module.transposed
    return 1 if transposed or isinstance(module, nn.Embedding) else 0
