"""Masks: which channels stay. A mask maps a group's name to a bool tensor, True = keep."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from easypruner.base.describe import describe
from easypruner.base.files import write_whole
from easypruner.errors import MaskError, nearest


class Group(Protocol):
    """What a mask is checked against."""

    @property
    def size(self) -> int:
        """The number of its units."""


class Groups(Protocol):
    """What masks are checked against: a channel graph."""

    @property
    def groups(self) -> Mapping[str, Group]:
        """Name -> group."""


class Masks(Mapping[str, Tensor]):
    """An immutable mapping from group name to a bool tensor of shape ``(units,)``, True = keep.

    Groups that are not named are kept whole.

    Raises:
        MaskError: a value that is not a one-dimensional bool tensor.

    >>> masks = Masks({'conv1': torch.tensor([True, False, True])})
    >>> masks.kept('conv1'), masks.removed_units
    (2, 1)
    """

    def __init__(self, masks: Mapping[str, Tensor] | None = None) -> None:
        checked: dict[str, Tensor] = {}
        for name, mask in (masks or {}).items():
            if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.dim() != 1:
                raise MaskError(
                    f'the mask of group {name!r} is {describe(mask)}; '
                    'expected a one-dimensional bool tensor, True = keep'
                )
            checked[name] = mask.detach().cpu()
        self._masks = checked

    def __getitem__(self, name: str) -> Tensor:
        return self._masks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._masks)

    def __len__(self) -> int:
        return len(self._masks)

    def __repr__(self) -> str:
        total = sum(m.numel() for m in self._masks.values())
        return f'Masks({len(self)} groups, {total - self.removed_units} of {total} units kept)'

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Masks):
            return NotImplemented
        return self.keys() == other.keys() and all(
            torch.equal(m, other[n]) for n, m in self.items()
        )

    __hash__ = None  # type: ignore[assignment]

    def kept(self, name: str) -> int:
        """Return how many units of group ``name`` stay."""
        return int(self._masks[name].sum())

    @property
    def removed_units(self) -> int:
        """Return how many units go, over all groups."""
        return sum(int((~m).sum()) for m in self._masks.values())

    def agreement(self, other: Masks) -> float:
        """Return the share of units on which two masks of the same groups agree, in 0..1.

        Raises:
            MaskError: the two do not name the same groups.
        """
        if self.keys() != other.keys():
            differing = ', '.join(sorted(self.keys() ^ other.keys())[:3])
            raise MaskError(
                f'masks of different groups cannot be compared; only in one: {differing}'
            )
        total = sum(m.numel() for m in self.values())
        same = sum(int((m == other[n]).sum()) for n, m in self.items())
        return same / total if total else 1.0

    def then(self, later: Masks) -> Masks:
        """Return these masks followed by ``later`` ones, over the units there were before both.

        Args:
            later: found on the network that these masks leave.

        Raises:
            MaskError: a later mask does not have as many entries as units are left of its group.

        >>> first = Masks({'conv1': torch.tensor([True, False, True])})
        >>> first.then(Masks({'conv1': torch.tensor([False, True])}))['conv1']
        tensor([False, False,  True])
        """
        both = dict(self._masks)
        for name, mask in later.items():
            earlier = both.get(name)
            if earlier is None:
                both[name] = mask
                continue
            if mask.numel() != int(earlier.sum()):
                raise MaskError(
                    f'the later mask of group {name!r} has {mask.numel()} entries, but the '
                    f'earlier one leaves {int(earlier.sum())} of {earlier.numel()} units; '
                    'give the masks in the order in which they were found'
                )
            both[name] = earlier.clone()
            both[name][earlier] = mask
        return Masks(both)

    def check(self, graph: Groups) -> None:
        """Raise MaskError unless every mask fits a group of ``graph`` and leaves a unit in it."""
        for name, mask in self.items():
            group = graph.groups.get(name)
            if group is None:
                raise MaskError(
                    f'the masks name group {name!r}, which this model does not have; '
                    + nearest(name, graph.groups)
                )
            if mask.numel() != group.size:
                raise MaskError(
                    f'the mask of group {name!r} has {mask.numel()} entries; '
                    f'the group has {group.size} units'
                )
            if not bool(mask.any()):
                raise MaskError(
                    f'the mask of group {name!r} removes all {group.size} units; '
                    'keep one at the least'
                )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the masks to a safetensors file, whole or not at all."""
        from safetensors.torch import save

        tensors = {name: mask.contiguous() for name, mask in self.items()}
        write_whole(path, save(tensors, metadata={'easypruner': 'masks', 'true': 'keep'}))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Masks:
        """Read masks from a safetensors file.

        Raises:
            MaskError: no such file, or it is no safetensors file of bool tensors.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        file = Path(path)
        if not file.is_file():
            raise MaskError(f'there is no mask file {str(file)!r}')
        try:
            tensors = load(file.read_bytes())
        except SafetensorError as error:
            raise MaskError(
                f'{str(file)!r} cannot be read as masks: {error}; '
                'expected a safetensors file as masks.safetensors of a run'
            ) from error
        # The library returns them in an order that differs from process to process.
        return cls(dict(sorted(tensors.items())))
