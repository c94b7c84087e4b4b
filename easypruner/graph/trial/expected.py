"""The script: what the forward pass did, looked up by operation, by module and by likeness."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

from torch import nn

from easypruner.graph.coupling.axes import Axis
from easypruner.graph.coupling.coupling import Coupling
from easypruner.graph.recording.tape import Operation, Tape

BOOKKEEPING = ('detach', 'alias', 'lift_fresh', 'lift_fresh_copy')
"""Operations that autograd and constants bring about, or not, from one run to the next."""

_Place = tuple[type[nn.Module], Any, int, int, int]


@dataclass(frozen=True)
class Location:
    """Where an axis is met, relative to an operation, so that it can be found for another.

    Attributes:
        up: how many modules outwards from the operation's own.
        position: of the operation that has the axis, among those of that module.
        place: of the axis among the axes of that operation.
    """

    up: int
    position: int
    place: int


@dataclass(frozen=True)
class Script:
    """What a forward pass is expected to do.

    Attributes:
        modules: dotted path -> module of the model that was traced.
        tape: of its evaluation pass.
        coupling: has the axes of the tape's tensors.
    """

    modules: Mapping[str, nn.Module]
    tape: Tape
    coupling: Coupling

    @cached_property
    def operations(self) -> list[Operation]:
        """The tape's operations without those that come and go."""
        return [op for op in self.tape.operations if op.name not in BOOKKEEPING]

    def axes_of(self, operation: Operation) -> list[Axis]:
        """Return the axes of an operation's tensors, one after the other, outputs first."""
        axes = self._axes.get(operation)
        if axes is None:
            tensors = (*operation.outputs, *operation.tensors)
            axes = [axis for tensor in tensors for axis in self.coupling.axes_of(tensor)]
            self._axes[operation] = axes
        return axes

    @cached_property
    def _axes(self) -> dict[Operation, list[Axis]]:
        return {}

    def axes_near(self, operation: Operation) -> list[Axis]:
        """Return the axes of an operation and of the next.

        Where a reshape has to copy first, the copy is the operation that does not come about,
        while the width in question is that of the view behind it.
        """
        following = self._following.get(operation)
        axes = self.axes_of(operation)
        return axes if following is None else [*axes, *self.axes_of(following)]

    def axes_about(self, operation: Operation) -> list[Axis]:
        """Return the axes near an operation, then all that its module meets in its own forward."""
        own = [op for op in self.within(operation.module) if op.module == operation.module]
        return [*self.axes_near(operation), *(axis for op in own for axis in self.axes_of(op))]

    def recent_parts(self, operation: Operation, count: int = 4) -> list[str]:
        """Return the parts of the operation's module that ran last before it, the last first.

        A module may read numbers of its parts: ``block.out_channels`` after a loop over blocks.
        Behind them come its direct parts, as many.
        """
        path, limit = operation.module, self._order[operation]
        depth = path.count('.') + 1 if path else 0
        parts: dict[str, None] = {}
        for other in reversed(self.within(path)):
            if self._order[other] >= limit or other.module == path:
                continue
            names = other.module.split('.')
            for level in (depth + 1, depth + 2):
                if level <= len(names):
                    parts['.'.join(names[:level])] = None
            if len(parts) >= count:
                break
        start = f'{path}.' if path else ''
        direct = [p for p in self.modules if p.startswith(start) and p.count('.') == depth and p]
        return list(dict.fromkeys([*list(parts)[:count], *direct[: 2 * count]]))

    @cached_property
    def _following(self) -> dict[Operation, Operation]:
        return dict(pairwise(self.operations))

    def alike(self, operation: Operation) -> list[Operation]:
        """Return the operations that other modules of the same type run at the same place."""
        mine = self._places[0][operation]
        return [other for other in self._places[1][mine] if other is not operation]

    @cached_property
    def _places(self) -> tuple[dict[Operation, _Place], dict[_Place, list[Operation]]]:
        """Each operation's place: type of its module, operation, how often it ran there before.

        And how many axes it has, and has near it: those of two at one place correspond.
        """
        places: dict[Operation, _Place] = {}
        alike: dict[_Place, list[Operation]] = {}
        count: dict[tuple[str, Any], int] = {}
        for operation in self.operations:
            where = (operation.module, operation.func)
            number = count[where] = count.get(where, -1) + 1
            kind = type(self.modules[operation.module])
            own, near = len(self.axes_of(operation)), len(self.axes_near(operation))
            place = (kind, operation.func, number, own, near)
            places[operation] = place
            alike.setdefault(place, []).append(operation)
        return places, alike

    def around(self, operation: Operation, most_up: int) -> Iterator[tuple[Location, Axis]]:
        """Yield the axes met in the operation's module, then in the modules around it.

        Operations that run after the given one are left out.
        """
        limit = self._order[operation]
        for up in range(min(most_up, operation.module.count('.') + 1) + 1):
            inside = self.within(outwards(operation.module, up))
            for position, other in enumerate(inside):
                if self._order[other] > limit:
                    break
                for place, axis in enumerate(self.axes_of(other)):
                    yield Location(up, position, place), axis

    def behind(self, operation: Operation) -> Iterator[tuple[Location, Axis]]:
        """Yield the axes that the operation's module meets later in its own forward."""
        start = self._order[operation]
        for position, other in enumerate(self.within(operation.module)):
            if self._order[other] > start and other.module == operation.module:
                for place, axis in enumerate(self.axes_of(other)):
                    yield Location(0, position, place), axis

    def at(self, operation: Operation, location: Location) -> Axis | None:
        """Return the axis at a location relative to ``operation``; None if there is none."""
        inside = self.within(outwards(operation.module, location.up))
        if location.position >= len(inside):
            return None
        axes = self.axes_of(inside[location.position])
        return axes[location.place] if location.place < len(axes) else None

    @cached_property
    def windowed(self) -> list[Axis]:
        """The axes out of which an operation cuts a window that is no even part of them."""
        found: dict[Axis, None] = {}
        for operation in self.operations:
            if operation.name == 'slice':
                dim = operation.args[1] if len(operation.args) > 1 else 0
                axis = self.coupling.axes_of(operation.args[0])[dim]
                width = operation.outputs[0].shape[dim]
                if axis.nodes.size and width and axis.size % width:
                    found[axis] = None
        return list(found)

    def within(self, path: str) -> list[Operation]:
        """Return the operations that run in a module or in its parts."""
        known = self._within.get(path)
        if known is None:
            inner = path + '.' if path else ''
            known = self._within[path] = [
                operation
                for operation in self.operations
                if operation.module == path or operation.module.startswith(inner)
            ]
        return known

    @cached_property
    def _within(self) -> dict[str, list[Operation]]:
        return {}

    @cached_property
    def _order(self) -> dict[Operation, int]:
        return {operation: number for number, operation in enumerate(self.operations)}


def outwards(path: str, up: int) -> str:
    """Return the path of the module ``up`` levels around the one at ``path``.

    >>> outwards('blocks.0.attn', 1)
    'blocks.0'
    """
    parts = path.split('.')
    return '.'.join(parts[: max(len(parts) - up, 0)])
