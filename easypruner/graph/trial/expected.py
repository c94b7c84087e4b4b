"""The expected trace: what the forward pass did, by operation, by module and by likeness."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

from torch import nn

from easypruner.graph.coupling.axes import Axis
from easypruner.graph.coupling.coupling import Coupling
from easypruner.graph.coupling.tensor_map import TensorMap
from easypruner.graph.recording.config_numbers import attributes_of, numbers_of
from easypruner.graph.recording.kinds import kind_of
from easypruner.graph.recording.tape import Operation, Tape

_HIDDEN = ('_parameters', '_buffers', '_modules', '_version')

STEPS = frozenset({
    'relu', 'sigmoid', 'tanh', 'gelu', 'silu', 'hardtanh', 'hardswish', 'hardsigmoid', 'leaky_relu',
    'elu', 'mish', 'softplus', '_softmax', 'convolution', 'native_batch_norm', 'native_layer_norm',
    'native_group_norm',
})  # fmt: skip
"""Operations that code runs for what they compute, and never to arrange or to convert tensors."""

_FILLING = frozenset({
    'fill_', 'zero_', 'normal_', 'uniform_', '_to_copy', 'detach', 'alias', 'lift_fresh',
})  # fmt: skip
"""Operations by which code fills a new tensor, or brings it to a device."""

_Role = tuple[type[nn.Module], Any, int, int, int]


@dataclass(frozen=True)
class Location:
    """Where an axis is, relative to an operation. The same location exists for other operations.

    Attributes:
        up: how many modules outwards from the operation's own.
        position: the position of the operation that has the axis, among those of that module.
        number: the number of the axis among the axes of that operation.
        name: the name of that operation. A module that runs another one there works otherwise.
    """

    up: int
    position: int
    number: int
    name: str


@dataclass(frozen=True)
class ExpectedTrace:
    """The operations that a forward pass is expected to run, and their axes.

    Attributes:
        modules: dotted path -> module of the traced model.
        tape: the tape of its evaluation pass.
        coupling: has the axes of the tensors on the tape.
    """

    modules: Mapping[str, nn.Module]
    tape: Tape
    coupling: Coupling

    @cached_property
    def operations(self) -> list[Operation]:
        """The operations that every run has, in order."""
        return [op for op in self.tape.operations if not kind_of(op.func).is_bookkeeping]

    @cached_property
    def axes(self) -> dict[Operation, list[Axis]]:
        """Operation -> the axes of its tensors one after the other, outputs first.

        A parameter of which no operation reads the values, as in ``parameter.new_zeros(3)``, has
        no axes. To ask for them would make new nodes, which are in no group.
        """
        of_parameter, parameters = self.coupling.axes.of_parameter, self.tape.parameters.items()
        unread = TensorMap((tensor, True) for name, tensor in parameters if not of_parameter(name))
        return {
            op: [
                axis
                for tensor in (*op.outputs, *op.tensors)
                if tensor not in unread
                for axis in self.coupling.axes_of(tensor)
            ]
            for op in self.operations
        }

    @cached_property
    def distinct_axes(self) -> list[Axis]:
        """The axes of all operations, each once."""
        return list(dict.fromkeys(axis for axes in self.axes.values() for axis in axes))

    @cached_property
    def axes_near(self) -> dict[Operation, list[Axis]]:
        """Operation -> its axes and those of the next operation.

        If a cut makes a reshape copy, or not copy, the operation in question is that copy, while
        the width in question is that of the view behind it.
        """
        following = dict(pairwise(self.operations))
        return {
            op: [*axes, *self.axes[following[op]]] if op in following else axes
            for op, axes in self.axes.items()
        }

    @cached_property
    def within(self) -> dict[str, list[Operation]]:
        """Path of a module -> the operations that run in the module or in its parts."""
        found: dict[str, list[Operation]] = {path: [] for path in self.modules}
        for operation in self.operations:
            for path in enclosing(operation.module):
                found[path].append(operation)
        return found

    @cached_property
    def numbers(self) -> dict[tuple[str, str], tuple[int, ...]]:
        """(path of a module, attribute) -> the integers that it holds, if one of them exceeds 1."""
        found = {
            (path, name): numbers_of(value)
            for path, module in self.modules.items()
            for name, value in attributes_of(module)
            if name not in _HIDDEN
        }
        return {key: numbers for key, numbers in found.items() if numbers and max(numbers) > 1}

    @cached_property
    def unused(self) -> set[Operation]:
        """The operations that make tensors for nothing: code fills them, and reads them nowhere.

        Their widths are those that the code says, whatever a cut does.
        """
        read = {id(tensor) for _, tensor in self.tape.outputs}
        found: set[Operation] = set()
        for operation in reversed(self.tape.operations):
            idle = not operation.tensors or operation.name in _FILLING
            if idle and not any(id(output) in read for output in operation.outputs):
                found.add(operation)
            else:
                read.update(map(id, operation.tensors))
        return found

    @cached_property
    def steps(self) -> dict[tuple[str, str], Operation]:
        """(name, path of a module) -> the first of such steps that the module runs."""
        found: dict[tuple[str, str], Operation] = {}
        for operation in self.operations:
            if operation.name.removesuffix('_') in STEPS:
                found.setdefault((operation.name, operation.module), operation)
        return found

    def axes_about(self, operation: Operation) -> list[Axis]:
        """Return the axes near an operation, then all axes that its module itself works with."""
        own = [op for op in self.within[operation.module] if op.module == operation.module]
        return [*self.axes_near[operation], *(axis for op in own for axis in self.axes[op])]

    def recent_parts(self, operation: Operation, count: int = 4) -> list[str]:
        """Return the parts of the operation's module that ran last before it, the last first.

        A module may read numbers of its parts, as ``block.out_channels`` after a loop over blocks.
        The parts that ran are followed by up to twice as many direct parts of the module.
        """
        path, limit = operation.module, self._order[operation]
        depth = path.count('.') + 1 if path else 0
        parts: dict[str, None] = {}
        for other in reversed(self.within[path]):
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

    def alike(self, operation: Operation) -> list[Operation]:
        """Return the operations that have the same role in other modules of the same type."""
        roles, by_role = self._roles
        return [other for other in by_role[roles[operation]] if other is not operation]

    def is_later(self, operation: Operation, other: Operation) -> bool:
        """Return whether an operation runs after another one."""
        return self._order[operation] > self._order[other]

    @cached_property
    def _roles(self) -> tuple[dict[Operation, _Role], dict[_Role, list[Operation]]]:
        """Operation -> its role, and role -> operations.

        A role is the type of the module, the operation, how often the module has run it before,
        and the numbers of axes at it and near it. So the axes of two operations correspond.
        """
        roles: dict[Operation, _Role] = {}
        by_role: dict[_Role, list[Operation]] = {}
        count: dict[tuple[str, Any], int] = {}
        for operation in self.operations:
            where = (operation.module, operation.func)
            number = count[where] = count.get(where, -1) + 1
            kind = type(self.modules[operation.module])
            own, near = len(self.axes[operation]), len(self.axes_near[operation])
            role = roles[operation] = (kind, operation.func, number, own, near)
            by_role.setdefault(role, []).append(operation)
        return roles, by_role

    def around(self, operation: Operation, most_up: int) -> Iterator[tuple[Location, Axis]]:
        """Yield the axes in the operation's module and in the modules around it.

        Operations that run after the given one are left out.
        """
        for up, path in enumerate(enclosing(operation.module)[: most_up + 1]):
            for other, location, axis in self._locations(path, up):
                if self._order[other] > self._order[operation]:
                    break
                yield location, axis

    def behind(self, operation: Operation) -> Iterator[tuple[Location, Axis]]:
        """Yield the axes that the operation's module itself works with later, then its parts.

        A module may take a width from the shape of an input that only a part of it reads.
        """
        later = [
            (other.module == operation.module, location, axis)
            for other, location, axis in self._locations(operation.module, 0)
            if self._order[other] > self._order[operation]
        ]
        for is_own in (True, False):
            yield from ((location, axis) for own, location, axis in later if own is is_own)

    def _locations(self, path: str, up: int) -> Iterator[tuple[Operation, Location, Axis]]:
        """Yield the axes of the operations in a module, with their locations ``up`` levels out."""
        for position, operation in enumerate(self.within[path]):
            for number, axis in enumerate(self.axes[operation]):
                yield operation, Location(up, position, number, operation.name), axis

    def find_axis(self, operation: Operation, location: Location | int) -> Axis | None:
        """Return the axis at a location relative to an operation; None if there is none.

        Args:
            operation: the operation.
            location: its location, or the number of an axis among those near the operation.
        """
        if isinstance(location, int):
            axes, number = self.axes_near[operation], location
        else:
            inside = self.within[outwards(operation.module, location.up)]
            if location.position >= len(inside):
                return None
            other = inside[location.position]
            axes, number = self.axes[other], location.number
            if other.name != location.name:
                return None
        return axes[number] if number < len(axes) else None

    @cached_property
    def windowed(self) -> list[Axis]:
        """The axes from which an operation slices a window that does not divide them evenly."""
        found: dict[Axis, None] = {}
        for operation in self.operations:
            if operation.name == 'slice':
                dim = operation.argument('dim')
                axis = self.coupling.axes_of(operation.args[0])[dim]
                width = operation.outputs[0].shape[dim]
                if axis.nodes.size and width and axis.size % width:
                    found[axis] = None
        return list(found)

    @cached_property
    def _order(self) -> dict[Operation, int]:
        return {operation: number for number, operation in enumerate(self.operations)}


def enclosing(path: str) -> list[str]:
    """Return the path of a module, then those of the modules around it, up to the model itself.

    >>> enclosing('blocks.0.attn')
    ['blocks.0.attn', 'blocks.0', 'blocks', '']
    """
    found = [path]
    while path:
        path = path.rpartition('.')[0]
        found.append(path)
    return found


def outwards(path: str, up: int) -> str:
    """Return the path of the module that is ``up`` levels around another.

    >>> outwards('blocks.0.attn', 1), outwards('stem', 3)
    ('blocks.0', '')
    """
    return enclosing(path)[min(max(up, 0), path.count('.') + 1)] if path else path
