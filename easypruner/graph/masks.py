"""Masks: which units of each group stay, as bool tensors, True = keep."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from easypruner.base.describe import describe
from easypruner.base.files import write_whole
from easypruner.errors import MaskError, nearest

_HASH = 'sha256'


class Sized(Protocol):
    """A group, to check a mask against."""

    @property
    def size(self) -> int:
        """The number of units."""


class Grouped(Protocol):
    """A channel graph, to check masks against."""

    @property
    def groups(self) -> Mapping[str, Sized]:
        """Name -> group."""


@runtime_checkable
class Advising(Protocol):
    """A channel graph that knows what to do about masks that do not fit."""

    def advise_on(self, masks: Mapping[str, Tensor]) -> str:
        """Return text to append to a message."""


class Masks(Mapping[str, Tensor]):
    """An immutable mapping: group -> bool tensor of shape ``(units,)``, True = keep.

    Groups without a mask stay whole.

    Raises:
        MaskError: a mask is not a one-dimensional bool tensor.

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

    def kept(self, name: str) -> int:
        """Return how many units of a group stay."""
        return int(self._masks[name].sum())

    @property
    def removed_units(self) -> int:
        """The number of units that go, in all groups."""
        return sum(int((~m).sum()) for m in self._masks.values())

    def agreement(self, other: Masks) -> float:
        """Return the share of units that two masks of the same groups both keep or both remove.

        Raises:
            MaskError: they have masks of different groups.
        """
        if self.keys() != other.keys():
            differing = ', '.join(sorted(self.keys() ^ other.keys())[:3])
            raise MaskError(
                f'masks of different groups cannot be compared; only in one: {differing}; '
                'give masks of the same graph'
            )
        total = sum(m.numel() for m in self.values())
        same = sum(int((m == other[n]).sum()) for n, m in self.items())
        return same / total if total else 1.0

    def then(self, later: Masks) -> Masks:
        """Return one set of masks that does the same as these masks and later ones.

        Args:
            later: the masks of the network that these masks leave.

        Raises:
            MaskError: a later mask does not have one entry for each unit that is left.

        >>> first = Masks({'conv1': torch.tensor([True, False, True])})
        >>> first.then(Masks({'conv1': torch.tensor([False, True])}))['conv1']
        tensor([False, False,  True])
        """
        both = dict(self._masks)
        for name, mask in later.items():
            earlier = both.get(name, torch.ones_like(mask))
            if mask.numel() != int(earlier.sum()):
                raise MaskError(
                    f'the later mask of group {name!r} has {mask.numel()} entries, but the '
                    f'earlier one leaves {int(earlier.sum())} of {earlier.numel()} units; '
                    'give the masks in the order in which they were found'
                )
            both[name] = earlier.clone()
            both[name][earlier] = mask
        return Masks(both)

    def check(self, graph: Grouped) -> None:
        """Raise MaskError unless every mask fits a group of a graph and keeps a unit of it."""
        for name, mask in self.items():
            group = graph.groups.get(name)
            if group is None:
                known = nearest(name, graph.groups)
                problem = f'the masks name group {name!r}, which this model does not have; {known}'
            elif mask.numel() != group.size:
                problem = (
                    f'the mask of group {name!r} has {mask.numel()} entries; expected '
                    f'{group.size}, one for each unit'
                )
            elif not bool(mask.any()):
                raise MaskError(
                    f'the mask of group {name!r} removes all {group.size} units; keep at least one'
                )
            else:
                continue
            advice = graph.advise_on(self) if isinstance(graph, Advising) else ''
            raise MaskError(f'{problem}{advice}')

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the masks to a safetensors file. If that fails, no file is left."""
        from safetensors.torch import save

        tensors = {name: mask.contiguous() for name, mask in self.items()}
        metadata = {'easypruner': 'masks', 'true': 'keep', _HASH: self._content_hash()}
        write_whole(path, save(tensors, metadata=metadata))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Masks:
        """Read masks from a safetensors file.

        Raises:
            MaskError: there is no such file, it is not a safetensors file of bool tensors, or it
                is damaged.
        """
        from safetensors import SafetensorError, safe_open
        from safetensors.torch import load

        file = Path(path)
        if not file.is_file():
            raise MaskError(f'there is no mask file {str(file)!r}; check the path')
        try:
            tensors = load(file.read_bytes())
            with safe_open(file, 'pt') as opened:
                written = (opened.metadata() or {}).get(_HASH)
        except SafetensorError as error:
            raise MaskError(
                f'{str(file)!r} cannot be read as masks: {error}; '
                'expected a safetensors file, such as masks.safetensors of a run'
            ) from error
        # safetensors returns them in an order that differs between processes.
        masks = cls(dict(sorted(tensors.items())))
        # Files of other programs have no hash.
        if written is not None and written != masks._content_hash():
            raise MaskError(
                f'the mask file {str(file)!r} is damaged: its masks do not have the hash that was '
                'written with them; copy it again, or select the masks anew'
            )
        return masks

    def _content_hash(self) -> str:
        """Return a hash of the masks, by which damage to a file is noticed."""
        digest = hashlib.sha256()
        for name, mask in sorted(self.items()):
            digest.update(f'{name} {mask.numel()} '.encode())
            digest.update(mask.numpy().tobytes())
        return digest.hexdigest()
