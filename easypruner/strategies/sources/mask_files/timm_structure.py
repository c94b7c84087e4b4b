"""Structures of timm: a text of the shapes of all parameters of a pruned network.

timm ships them in timm/models/_pruned: ``name.weight:[out, in, height, width]``, joined by ``***``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from easypruner.errors import MaskError, nearest
from easypruner.graph import ChannelGraph, Masks
from easypruner.graph.answers.structure import INPUTS, OUTPUTS
from easypruner.graph.recording.inventory import Inventory
from easypruner.strategies.sources.mask_files.contents import How
from easypruner.strategies.sources.mask_files.units import Places
from easypruner.strategies.sources.mask_files.widths import (
    Width,
    check_frozen,
    choose,
    solve,
    units_left,
)

SEPARATOR = '***'
_ENTRY = re.compile(r'([^\s:\[\]]{1,500}):\[([0-9, ]{0,200})\]')
_LARGEST = 2**31


@dataclass(frozen=True)
class TimmStructure:
    """The shapes of a pruned network.

    Attributes:
        shapes: dotted name of a parameter or buffer -> its shape.
    """

    shapes: Mapping[str, tuple[int, ...]]
    kind: ClassVar[str] = 'a structure of timm'
    only_widths: ClassVar[bool] = True

    @property
    def names(self) -> Collection[str]:
        return self.shapes

    def renamed(self, names: Mapping[str, str]) -> TimmStructure:
        return TimmStructure({names[name]: shape for name, shape in self.shapes.items()})

    def fit(self, graph: ChannelGraph, earlier: Masks, how: How) -> Masks:
        places = Places(graph, earlier)
        tensors = Inventory(graph.model).tensors
        found = {name: shape for name, shape in self.shapes.items() if name in tensors}
        widths = [width for name in found for width in _widths(name, found[name], places)]
        self._check_names(graph, found)
        return choose(solve(widths, units_left(places)), places, how)

    def _check_names(self, graph: ChannelGraph, found: Collection[str]) -> None:
        """Raise MaskError if a group has no shape, and shapes are of something unknown.

        Shapes of what the network does not have are left out otherwise, as timm does.
        """
        unknown = [name for name in self.shapes if name not in found]
        params = {name: {m.param for m in group.members} for name, group in graph.groups.items()}
        silent = [name for name, members in params.items() if members.isdisjoint(found)]
        if unknown and (silent or not found):
            known = [param for name in silent or params for param in params[name]]
            raise MaskError(
                f'the structure has a shape of {unknown[0]!r}, which this '
                f'{type(graph.model).__name__} does not have, and none for group '
                f'{(silent or [""])[0]!r}; {nearest(unknown[0], known)}; rename= maps names from '
                'other code'
            )


def parse(text: str, file: str) -> TimmStructure:
    """Read a structure.

    Raises:
        MaskError: an entry is not a name and a shape, or a name has two shapes.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for number, entry in enumerate(text.strip().split(SEPARATOR), start=1):
        match = _ENTRY.fullmatch(entry.strip())
        sizes = _sizes(match[2]) if match else None
        if match is None or sizes is None:
            shown = entry.strip()[:60]
            raise MaskError(
                f'entry {number} of {file!r} is {shown!r}; expected name:[size, size, ...] with '
                f'sizes from 1, and {SEPARATOR} between entries'
            )
        if shapes.setdefault(match[1], sizes) != sizes:
            raise MaskError(
                f'entry {number} of {file!r} gives {match[1]!r} the shape {list(sizes)}; expected '
                f'{list(shapes[match[1]])}, as in an earlier entry'
            )
    return TimmStructure(shapes)


def looks_like(text: str) -> bool:
    """Tell whether a text begins as a structure does."""
    return _ENTRY.match(text.lstrip()[:800]) is not None


def _sizes(text: str) -> tuple[int, ...] | None:
    """Return the sizes in a shape; None if it is not one."""
    if not text.strip():
        return ()
    parts = [part.strip() for part in text.split(',')]
    if not all(part.isdigit() and len(part) < 11 and 0 < int(part) < _LARGEST for part in parts):
        return None
    return tuple(map(int, parts))


def _widths(name: str, shape: tuple[int, ...], places: Places) -> Iterator[Width]:
    """Yield the width of each dimension of a parameter that units have."""
    graph = places.graph
    rank = graph.parameter(name).dim()
    if len(shape) != rank:
        raise MaskError(
            f'the structure gives {name!r} the shape {list(shape)}; expected {rank} sizes, because '
            f'it has the shape {list(places.shape(name))} in this {type(graph.model).__name__}'
        )
    for dim, total in enumerate(shape):
        at = places.at(name, dim)
        width = Width.of(f'dimension {dim} of {name!r} in the structure', total, at)
        if width is None:
            if total < at.size:
                raise MaskError(
                    f'dimension {dim} of {name!r} is {total} in the structure, which does not say '
                    'how many units stay, because their sizes there differ'
                )
        elif width.per_unit:
            yield width
        # The number of classes, and of channels of the input, is the network's own.
        elif not any(
            f.kind in (INPUTS, OUTPUTS) for f in graph.frozen if (f.param, f.dim) == (name, dim)
        ):
            check_frozen(graph, width, name, dim)
