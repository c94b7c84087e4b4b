"""Tally: the costs of the operations of a forward pass, and their uses of parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from easypruner.graph.coupling.axes import Axis, TensorAxes
from easypruner.graph.recording.kinds import once_each
from easypruner.graph.recording.tape import Operation, name_of

_UNDECLARED_VIEWS = ('_unsafe_view', 'unsafe_split', 'unsafe_split_with_sizes', 'unsafe_chunk')
"""Operations that return views, though their schemas do not declare it."""


class Term(NamedTuple):
    """A product in the cost: ``factor`` times the kept sizes of ``axes``.

    Attributes:
        factor: the constant factor.
        axes: the axes whose sizes are multiplied.
        module: the path of the module whose forward has the cost.
    """

    factor: int
    axes: tuple[Axis, ...]
    module: str


@dataclass(frozen=True)
class Width:
    """An attribute of a module that holds the size of an axis.

    Attributes:
        module: the path of the module.
        attribute: the name of the attribute. The module need not have it.
        axis: the axis.
    """

    module: str
    attribute: str
    axis: Axis

    @property
    def key(self) -> tuple[str, str]:
        """The path of the module and the name of the attribute."""
        return self.module, self.attribute


class Tally:
    """What the rules count and note.

    Attributes:
        is_counting: whether costs are counted.
        macs: the multiply-adds of each contraction.
        activations: the elements of each tensor that an operation makes.
        operands: parameter -> the operation and argument of its first use.
        extents: weight -> the spatial extent, or sequence, at which it makes channels.
        widths: the attributes of modules that hold the size of an axis.
        multiples: axes whose size has to be a multiple of a number, with that number.
        minimums: axes that need at least so many indices, with that number.
        experts: axes of which each index is an expert of a mixture.
    """

    def __init__(self) -> None:
        self.is_counting = True
        self.macs: list[Term] = []
        self.activations: list[Term] = []
        self.operands: dict[str, str] = {}
        self.extents: dict[str, tuple[int, ...]] = {}
        self.widths: list[Width] = []
        self.multiples: list[tuple[Axis, int]] = []
        self.minimums: list[tuple[Axis, int]] = []
        self.experts: list[Axis] = []

    def add_outputs(self, operation: Operation, axes: TensorAxes) -> None:
        """Count the outputs of an operation that are new memory, not views of its arguments."""
        if self.is_counting and _makes_memory(operation.func):
            for output in operation.outputs:
                if output.numel() and not any(output is tensor for tensor in operation.tensors):
                    self.activations.append(Term(1, axes.of(output), operation.module))


@once_each
def _makes_memory(func: Any) -> bool:
    """Return whether an operation returns new tensors, not views or arguments changed in place."""
    if name_of(func) in _UNDECLARED_VIEWS:
        return False
    return any(returned.alias_info is None for returned in func._schema.returns)
