"""Positions: tensors of integers that say where in an axis something is, as of chosen experts.

If such positions only look entries up, in axes that lose the same indices, a cut renumbers both
alike. Any other use of them keeps all indices of the axis.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from easypruner.graph.coupling.axes import Axis
from easypruner.graph.coupling.tensor_map import TensorMap
from easypruner.graph.recording.tape import Operation

LOOK_UPS = frozenset(
    ('index', '_unsafe_index', 'index_select', 'gather', 'embedding', 'scatter', 'scatter_add',
     'scatter_reduce', 'one_hot', 'bincount', 'histc')
)  # fmt: skip
"""Operations whose rules couple the axis of positions with the one in which they look up."""

_KEEPING = frozenset(
    ('view', '_unsafe_view', 'reshape', '_reshape_alias', 'flatten', 'unflatten', 'permute',
     'transpose', 't', 'unsqueeze', 'squeeze', 'expand', 'repeat', 'repeat_interleave', 'slice',
     'select', 'unbind', 'split', 'split_with_sizes', 'chunk', 'narrow', 'clone', '_to_copy', 'to',
     'contiguous', 'detach', 'alias', 'lift_fresh', 'sort', 'prim::device')
)  # fmt: skip
"""Operations whose first output has the same values, in another order or type."""


class Positions:
    """The tensors of positions, and the axes in which they are.

    Attributes:
        is_followed: whether positions are followed. Else all indices of such axes stay.
        axes: the axes in which there are positions.
    """

    def __init__(self) -> None:
        self.is_followed = True
        self.axes: list[Axis] = []
        self._axes: TensorMap[Axis] = TensorMap()
        self._unused: dict[int, tuple[Axis, str]] = {}

    def note(self, tensor: Tensor, axis: Axis, reason: str) -> None:
        """Note that a tensor has positions in an axis.

        Args:
            tensor: the positions.
            axis: the axis.
            reason: why all its indices stay unless the positions look something up.
        """
        self.axes.append(axis)
        self._axes[tensor] = axis
        self._unused[id(axis)] = axis, reason

    def of(self, tensor: Tensor) -> Axis | None:
        """Return the axis in which a tensor has positions, if it has."""
        return self._axes.get(tensor) if self.axes else None

    def use(self, axis: Axis) -> None:
        """Note that positions in an axis look something up."""
        self._unused.pop(id(axis), None)

    def unused(self) -> Iterator[tuple[Axis, str]]:
        """Yield (axis, reason to keep all of it) where positions look nothing up."""
        yield from self._unused.values()

    def follow(self, operation: Operation) -> Iterator[Axis]:
        """Follow positions through an operation; yield the axes of those that it uses otherwise."""
        name = operation.name.removesuffix('_')
        looks_up = name in LOOK_UPS
        for tensor in operation.tensors:
            axis = self._axes.get(tensor)
            if axis is None or (looks_up and tensor is not operation.tensors[0]):
                continue
            # A sort of positions is the same after a cut, which keeps their order.
            if name in ('one_hot', 'bincount', 'histc', 'argsort'):
                continue
            if name in _KEEPING or name in ('index', '_unsafe_index', 'index_select', 'gather'):
                kept = operation.outputs[:1] if name == 'sort' else operation.outputs
                for output in kept:
                    self._axes[output] = axis
            else:
                yield axis
