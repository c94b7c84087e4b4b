"""Coupling: the axes of all tensors and what couples them, as the rules of operations use it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from functools import reduce

from torch import Tensor

from easypruner.errors import TraceError
from easypruner.graph.coupling.axes import (
    INNER,
    SHARED,
    SINGLE,
    Axis,
    Dim,
    Ids,
    Staying,
    TensorAxes,
)
from easypruner.graph.coupling.edges import Edges
from easypruner.graph.coupling.grouped import GroupedConvolutions
from easypruner.graph.coupling.history import History
from easypruner.graph.coupling.memory import Memory
from easypruner.graph.coupling.positions import Positions
from easypruner.graph.coupling.splits import Splits
from easypruner.graph.coupling.tally import Tally, Term, Width
from easypruner.graph.coupling.templates import Templates
from easypruner.graph.coupling.unprunable import is_vector
from easypruner.graph.recording.tape import Operation, Tape


class Coupling:
    """Which axes belong together, collected operation by operation.

    A rule gets the axes of an operation's inputs from :meth:`axes_of`, couples those that must lose
    the same indices, and assigns axes to the outputs with :meth:`assign`.

    Attributes:
        operation: the operation whose rule runs.
        axes: the axes of all tensors.
        edges: the edges between the nodes of axes.
        history: which operation made which edges.
        tally: the costs of operations, and the uses of parameters.
        splits: the dimensions that were split into several.
        grouped: the grouped convolutions, and which of them lose whole groups.
        positions: the tensors of positions in axes.
        memory: which tensors are views of others, and which parts of tensors are read.
        mixed: (axis, operation) for each axis whose channels an operation mixes.
        readers: the axes of parameters that read channels.
        alike: the numbers of the calls that made edges between parameters of one weight.
        is_ambiguous: whether dimensions were merged of which several may lose indices. A second
            propagation, which knows what stays, may then find more.

    Args:
        tapes: the operations.
        tensors: name -> parameter or buffer of the model.
        unprunable: dimension of a parameter or buffer -> the reason for which it stays whole.
        staying: the dimensions of which some indices are known to stay.
        directions: the names of the parameters that weight norm divides by their length.
        splits: the dimensions that are split into several, and which of them should stay free.
        grouped: which grouped convolutions lose whole groups.
    """

    operation: Operation

    def __init__(
        self,
        tapes: Sequence[Tape],
        tensors: Mapping[str, Tensor],
        unprunable: Mapping[Dim, str],
        staying: Staying,
        directions: Set[str],
        splits: Splits,
        grouped: GroupedConvolutions,
    ) -> None:
        self.axes = TensorAxes(tapes, unprunable, staying)
        self.edges = Edges()
        self.history = History()
        self.tally = Tally()
        self.splits = splits
        self.positions = Positions()
        self.memory = Memory(tapes)
        self.templates = Templates(tapes)
        self.grouped = grouped
        self.mixed: list[tuple[Axis, Operation]] = []
        self.readers: list[Axis] = []
        self.alike: list[range] = []
        self.is_ambiguous = False
        self._directions = directions
        self._tensors = tensors

    # What every rule needs

    def axes_of(self, tensor: Tensor) -> tuple[Axis, ...]:
        """Return the axes of a tensor, one for each dimension."""
        return self.axes.of(tensor)

    def has_axes(self, tensor: Tensor) -> bool:
        """Return whether a tensor already has axes, as one that an operation changes in place."""
        return self.axes.are_known(tensor)

    def assign(self, tensor: Tensor, axes: Iterable[Axis]) -> None:
        """Assign axes to an output, one for each dimension.

        Raises:
            TraceError: their sizes are not those of the output.
        """
        axes = tuple(axes)
        sizes = [axis.ids.size for axis in axes]
        if sizes != list(tensor.shape):
            raise TraceError(
                f'an output of shape {tuple(tensor.shape)} is given axes of sizes {sizes} by the '
                f'rule of {self.operation}'
            )
        self.axes.assign(tensor, axes)

    def assign_constants(self, tensor: Tensor, reason: str = INNER) -> None:
        """Assign axes to an output of which all indices stay."""
        self.assign(tensor, [self.make_constant(size, reason) for size in tensor.shape])

    def couple(self, a: Axis, b: Axis) -> Axis:
        """Make two axes of one size lose the same indices; return the one to hand on.

        Raises:
            TraceError: the sizes differ.
        """
        if a.ids.size != b.ids.size:
            raise TraceError(
                f'axes of sizes {a.size} and {b.size} are coupled by the rule of {self.operation}'
            )
        parts, others = a.dimensions, b.dimensions
        if len(parts) > 1 or len(others) > 1:
            # The one that has a single free factor is handed on: it does not depend on what is
            # found out about the other one.
            known = a if len(others) > 1 else b
            parts, others = (
                own if len(own) > 1 else axis.factors for own, axis in ((parts, a), (others, b))
            )
            if [part.size for part in parts] == [other.size for other in others]:
                for part, other in zip(parts, others, strict=True):
                    self.edges.couple(part, other)
                return known
        return self.edges.couple(a, b)

    def couple_all(self, axes: Sequence[Axis]) -> Axis:
        """Make one or more axes of one size lose the same indices; return the one to hand on."""
        return reduce(self.couple, axes)

    def couple_runs(self, axis: Axis, count: int) -> Axis:
        """Make ``count`` equal runs of an axis lose the same positions; return one run."""
        return self.edges.couple_runs(axis, count)

    def couple_within(self, axis: Axis, size: int) -> Axis:
        """Make indices go by whole runs of ``size``; return an axis with one index for each run."""
        if size < 1 or axis.size % size:
            raise ValueError(f'an axis of size {axis.size} has no equal runs of {size} indices')
        return self.edges.couple_runs(axis.transposed(axis.size // size), size)

    def freeze(self, axis: Axis, reason: str) -> None:
        """Keep all indices of an axis. The reason is reported with the operation and the module."""
        if not axis.is_constant:
            self.freeze_dimensions(axis, self.explain(reason))

    def freeze_tensor(self, tensor: Tensor, reason: str) -> None:
        """Keep all indices of all dimensions of a tensor."""
        for axis in self.axes_of(tensor):
            self.freeze(axis, reason)

    def look_up(self, axis: Axis, table: Tensor, reason: str) -> None:
        """Keep all indices of an axis in which a table looks entries up.

        If the table has positions in another axis of its size, couple both instead.
        """
        known = self.positions.of(table)
        if known is not None and known.size == axis.size:
            self.couple(axis, known)
            self.positions.use(known)
            return
        for each in (axis, known):
            if each is not None:
                self.freeze(each, reason)

    def make_constant(self, size: int, reason: str = INNER) -> Axis:
        """Return an axis of ``size`` indices that all stay, such as an extent of an image."""
        return self.axes.reasons.make_axis(size, reason)

    def make_free(self, size: int) -> Axis:
        """Return a new axis, such as that of zeros. It follows what it is coupled with."""
        return self.make_constant(1, SINGLE) if size == 1 else self.axes.make_free(size)

    def explain(self, reason: str) -> str:
        """Return a reason followed by the operation and the module in which it runs."""
        return f'{reason}: {self.operation}'

    def note_attention(self, *sides: tuple[Sequence[Axis], Sequence[Axis]]) -> None:
        """Note an attention: for each of its tensors, the axes of heads and those of their width.

        A width that queries of several heads share stays if heads are lost.
        """
        for axis in self.splits.note_attention(*sides):
            self.freeze(axis, SHARED)

    # What rules of layers with parameters need

    def parameter_of(self, tensor: Tensor) -> str | None:
        """Return the parameter that a tensor is, or from which alone it is computed; else None."""
        return self.axes.parameter_of(tensor)

    def note_writing(self, tensor: Tensor, pairs: Iterable[tuple[Axis, Axis]] = ()) -> None:
        """Note that the operation writes into a tensor, such as a buffer that is a cache of keys.

        If what it writes is not computed from parameters alone, the tensor is no weight any more,
        and nor is another one in whose memory it lies.

        Args:
            tensor: the tensor, which may be a view of another one. That is read afterwards.
            pairs: (axis of the tensor, axis of what is written) where these have the same size.
        """
        if all(self.parameter_of(each) is not None for each in self.operation.tensors):
            return
        made = {
            old: old.marked(new.part)
            for old, new in pairs
            if new.part is not None and not old.is_made and old.size > 1
        }
        for each in self.memory.with_bases(tensor):
            self.axes.forget_origin(each)
            if made:
                axes = self.axes_of(each)
                self.axes.assign(each, tuple(made.get(axis, axis) for axis in axes))

    def note_alike(self) -> None:
        """Note that the operation computes a weight from several parameters, such as their sum.

        Where one of them reads channels, so does another one that it couples with that.
        """
        self.alike.append(range(self.history.edges, self.edges.mark()))

    def couple_parameter(
        self, tensor: Tensor, given: Mapping[int, Axis], reads: int | None = None
    ) -> tuple[Axis, ...]:
        """Couple dimensions of a parameter with axes of other tensors; return its axes.

        Args:
            tensor: usually a parameter or buffer. It may be any tensor.
            given: dimension -> the axis, of the same size, with which it is coupled.
            reads: the dimension, one of those, over which the operation sums.
        """
        axes = self.axes.adopt(tensor, given, reads)
        for dim, axis in given.items():
            if axis is not axes[dim]:
                self.couple(axis, axes[dim])
        if reads is not None:
            if self.parameter_of(tensor) is None:
                self.note_mixing(axes[reads])
            elif not self.axes.is_adopted(tensor, reads):
                self.note_reading(axes[reads])
        return axes

    def contract(self, a: Tensor, axis_a: Axis, b: Tensor, axis_b: Axis) -> None:
        """Couple two axes over whose products an operation sums.

        The axis of a parameter reads channels. If neither tensor is a parameter, the operation
        mixes channels. So does a product of a weight with a vector that is not trained: it is a
        step of the power iteration that finds the norm by which the whole weight is divided.
        """
        self.couple(axis_a, axis_b)
        sides = ((axis_a, self.parameter_of(a)), (axis_b, self.parameter_of(b)))
        readers = [axis for axis, name in sides if name is not None]
        names = [name for _, name in sides if name is not None]
        is_norm = len(names) == 2 and any(is_vector(self._tensors[name]) for name in names)
        if not readers or is_norm:
            for axis, _ in sides:
                self.note_mixing(axis)
            return
        for axis in readers:
            self.note_reading(axis)

    def note_reading(self, axis: Axis) -> None:
        """Note that a parameter's axis reads channels: the operation sums over it."""
        self.readers += (part for part in axis.dimensions if not part.is_constant)

    def note_mixing(self, axis: Axis) -> None:
        """Note that the operation mixes channels, as a layer norm does: each changes the others."""
        if not axis.is_constant:
            # A length under weight norm depends on the whole direction. A cut corrects it.
            first = self.operation.tensors[:1] if self._directions else ()
            if not any(self.parameter_of(tensor) in self._directions for tensor in first):
                self.mixed += ((part, self.operation) for part in axis.dimensions)

    def note_use(
        self, tensor: Tensor | None, operand: str, extent: Sequence[int] | None = None
    ) -> None:
        """Note what a tensor is used as, if it is a parameter. The first use counts.

        Args:
            tensor: a tensor that may be a parameter.
            operand: the operation and its argument, such as ``'linear.weight'``.
            extent: the spatial extent, or sequence, at which it makes channels.
        """
        name = None if tensor is None else self.parameter_of(tensor)
        if name is not None:
            self.tally.operands.setdefault(name, operand)
            if extent is not None:
                self.tally.extents.setdefault(name, tuple(extent))

    def note_width(self, attribute: str, axis: Axis) -> None:
        """Note that an attribute of the module holds the size of an axis, if the module has it."""
        if not axis.is_constant:
            self.tally.widths.append(Width(self.operation.module, attribute, axis))

    def note_multiple(self, axis: Axis, number: int) -> None:
        """Note that the operation runs only if the size of an axis is a multiple of a number."""
        if not axis.is_constant and number > 1:
            self.tally.multiples.append((axis, number))

    def note_minimum(self, axis: Axis, number: int) -> None:
        """Note that the operation runs only if an axis has at least so many indices."""
        if not axis.is_constant:
            self.tally.minimums.append((axis, number))

    def add_macs(self, factor: int, *axes: Axis) -> None:
        """Count ``factor`` times the kept sizes of ``axes`` as multiply-adds.

        Raises:
            TraceError: the factor is not a whole number of 0 or more, or an axis is not an axis.
        """
        wrong = [axis for axis in axes if not isinstance(axis, Axis)]
        if not isinstance(factor, int) or factor < 0 or wrong:
            raise TraceError(
                f'add_macs is given {"the axis" if wrong else "the factor"} '
                f'{wrong[0] if wrong else factor!r} by the rule of {self.operation}; expected a '
                'whole number of 0 or more as the factor, and then axes, as axes_of() returns them'
            )
        if self.tally.is_counting:
            each = tuple(part for axis in axes for part in axis.dimensions)
            self.tally.macs.append(Term(factor, each, self.operation.module))

    # For use after the rules

    def note_step(self, operation: Operation | None) -> None:
        """Note that the rule of an operation has run; None at the end of a pass."""
        self.history.note(operation, self.edges.mark(), len(self.axes.owners))

    def freeze_dimensions(self, axis: Axis, reason: str) -> None:
        """Keep all indices of an axis, or of the axes that were merged into it, for a reason."""
        for part in axis.dimensions:
            if not part.is_constant:
                self.freeze_nodes(part.ids, reason)

    def freeze_nodes(self, ids: Ids, reason: str) -> None:
        """Keep the indices with the given ids for a reason."""
        self.edges.freeze(ids, self.axes.reasons.id_of(reason))
