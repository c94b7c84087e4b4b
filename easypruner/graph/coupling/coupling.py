"""Coupling: index arrays that follow every dimension through the tape, and the edges they emit.

Each dimension of each parameter gets an array of fresh node ids, one per index. Rules pass these
arrays on from an operation's inputs to its outputs, and couple the arrays that must be cut alike.
Ids below zero are reasons: an index coupled with a reason stays.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from easypruner.graph.recording.tape import Operation, Tape

Axis = npt.NDArray[np.int64]
"""The node id of each index of one dimension."""

SplitKey = tuple[int, int]
"""A split of one dimension into several: the number of its operation, and its own within that."""

INNER = 'a spatial, batch or sequence extent, which no parameter decides'
SINGLE = 'has a single channel'
TABLE = 'a table of integers'
UNUSED = 'not used in the forward pass'
_UNTOLD_VIEWS = ('_unsafe_view', 'unsafe_split', 'unsafe_split_with_sizes', 'unsafe_chunk')
"""Operations that return views without saying so."""


@dataclass(frozen=True)
class Term:
    """A product in the cost: ``factor`` times the kept sizes of ``axes``, in a module's forward."""

    factor: int
    axes: tuple[Axis, ...]
    module: str


@dataclass(frozen=True)
class Owner:
    """A dimension of a parameter or buffer, and the node id of each of its indices.

    Attributes:
        param: dotted name.
        dim: the dimension.
        ids: of the nodes.
        reads: whether the dimension reads channels; None where its ids are its own, so that
            :meth:`Coupling.reads` tells.
    """

    param: str
    dim: int
    ids: Axis
    reads: bool | None = None


@cache
def _makes_memory(func: Any) -> bool:
    """Tell whether an operation returns new tensors, not views or what it changed in place."""
    if func.overloadpacket.__name__ in _UNTOLD_VIEWS:
        return False
    return any(returned.alias_info is None for returned in func._schema.returns)


class Coupling:
    """What is coupled with what, gathered while rules walk the tape.

    Attributes:
        operation: the operation a rule is working on.
        counting: whether multiply-adds and activations are being counted.
        terms: the multiply-adds of each contraction.
        activations: the elements of each tensor that an operation made.
        owners: the dimensions that have node ids of their own.
        nodes: how many node ids there are.
        ambiguous: whether free dimensions were merged, so that a second walk, which knows what
            stays, may find more.
        mixed: axes whose channels an operation mixes (a layer norm, a mean over channels), with
            the operation: removing one changes the others.
        operands: parameter name -> the operation and argument it is first used as.
        extents: name of a weight -> the spatial extent, or sequence, at which it makes channels.
        step: the number of the operation at hand.
        preferred: split -> the part of it that is to stay free.
        split_at: split -> the part of it that did stay free.
        numbers: (module, attribute, the axis whose width it holds), as far as rules know.
        heads: split -> the part of it that counts the heads of an attention.
        head_widths: split -> the part of it that is the width of a head.
    """

    def __init__(
        self,
        tapes: Sequence[Tape],
        fixed: Mapping[tuple[str, int], str] | None = None,
        directions: Collection[str] = (),
        preferred: Mapping[SplitKey, int] | None = None,
    ) -> None:
        self.operation: Operation | None = None
        self.counting = True
        self.terms: list[Term] = []
        self.activations: list[Term] = []
        self.mixed: list[tuple[Axis, Operation]] = []
        self.operands: dict[str, str] = {}
        self.reasons: list[str] = []
        self.owners: list[Owner] = []
        self.nodes = 0
        self.ambiguous = False
        self._fixed = dict(fixed or {})
        self._directions = directions
        self._reason_id: dict[str, int] = {}
        self._constants: dict[tuple[int, int], Axis] = {}
        self._constant_arrays: set[int] = set()
        self.numbers: list[tuple[str, str, Axis]] = []
        self.heads: dict[SplitKey, int] = {}
        self.head_widths: dict[SplitKey, int] = {}
        self.split_at: dict[SplitKey, int] = {}
        self.extents: dict[str, tuple[int, ...]] = {}
        self.preferred = dict(preferred or {})
        self.step = 0
        self._split: SplitKey = (0, -1)
        self._parts: dict[int, tuple[Axis, SplitKey, int]] = {}
        self._axes: dict[int, tuple[Axis, ...]] = {}
        self._taken: set[tuple[str, int]] = set()
        self._edges: list[tuple[Axis, Axis]] = []
        self._reads: list[Axis] = []
        self._factors: dict[int, tuple[Axis, tuple[Axis, ...]]] = {}
        self._parameters = {
            id(tensor): name for tape in tapes for name, tensor in tape.parameters.items()
        }
        self._weights: dict[int, str] = dict(self._parameters)
        self._axes_of: dict[str, tuple[Axis, ...]] = {}
        for tensor in chain.from_iterable(tape.inputs for tape in tapes):
            reason = 'an input of the model'
            self._axes[id(tensor)] = tuple(self.constant(size, reason) for size in tensor.shape)

    # Axes of tensors

    def axes(self, tensor: Tensor) -> tuple[Axis, ...]:
        """Return the axes of a tensor; a tensor the tape has not seen made is a constant."""
        known = self._axes.get(id(tensor))
        if known is not None:
            return known
        name = self._parameters.get(id(tensor))
        if name in self._axes_of:
            axes = self._axes_of[name]
        elif name is None:
            axes = tuple(self.constant(size, 'a constant tensor') for size in tensor.shape)
        elif not (tensor.is_floating_point() or tensor.is_complex()):
            axes = tuple(self.constant(size, TABLE) for size in tensor.shape)
        else:
            axes = tuple(self._own(name, dim, size) for dim, size in enumerate(tensor.shape))
        if name is not None:
            self._axes_of[name] = axes
        self._axes[id(tensor)] = axes
        return axes

    def own(
        self, tensor: Tensor, given: Mapping[int, Axis], reads: int | None = None
    ) -> tuple[Axis, ...]:
        """Return the axes of a parameter, some of which are known to be others'.

        A parameter that is met for the first time takes these as they are, which spares the nodes
        and edges of coupling them.

        Args:
            tensor: usually a parameter or buffer.
            given: dimension -> the axis it is to be coupled with, of the same size.
            reads: one of the given dimensions, which reads channels.
        """
        name = self._parameters.get(id(tensor))
        if name is None or name in self._axes_of or not tensor.is_floating_point():
            axes = self.axes(tensor)
            for dim, axis in given.items():
                self.couple(axis, axes[dim])
            if reads is not None and self.weight_of(tensor) is None:
                self.mix(axes[reads])
            elif reads is not None and (name, reads) not in self._taken:
                self.read(axes[reads])
            return axes
        taken = []
        for dim, size in enumerate(tensor.shape):
            if dim in given and size > 1 and (name, dim) not in self._fixed:
                taken.append(given[dim])
                self._taken.add((name, dim))
                self.owners.append(Owner(name, dim, given[dim], reads == dim))
            else:
                taken.append(self._own(name, dim, size))
                if dim in given:
                    self.couple(given[dim], taken[-1])
        self._axes_of[name] = self._axes[id(tensor)] = tuple(taken)
        return self._axes_of[name]

    def assign(self, tensor: Tensor, axes: Iterable[Axis]) -> None:
        """Say what the dimensions of an operation's output are."""
        self._axes[id(tensor)] = tuple(axes)

    def assigned(self, tensor: Tensor) -> bool:
        """Tell whether a tensor's axes are known already."""
        return id(tensor) in self._axes or id(tensor) in self._parameters

    def fresh(self, size: int) -> Axis:
        """Return an axis that follows whatever it will be coupled with (a fill, an expand)."""
        if size == 1:
            return self.constant(1, SINGLE)
        return self._allocate(size)

    def axes_of(self, param: str) -> tuple[Axis, ...] | None:
        """Return the axes of a parameter or buffer; None if no operation read it."""
        return self._axes_of.get(param)

    def owned_axes(self) -> Iterator[Axis]:
        """Yield the axes of all parameters and buffers."""
        for axes in self._axes_of.values():
            yield from axes

    def _own(self, name: str, dim: int, size: int) -> Axis:
        if size <= 1:
            return self.constant(size, SINGLE)
        reason = self._fixed.get((name, dim))
        if reason is not None:
            return self.constant(size, reason)
        axis = self._allocate(size)
        self.owners.append(Owner(name, dim, axis))
        return axis

    def _allocate(self, size: int) -> Axis:
        start = self.nodes
        self.nodes += size
        return np.arange(start, self.nodes)

    # Reasons

    def reason(self, text: str) -> int:
        """Return the (negative) id that stands for a reason to stay."""
        known = self._reason_id.get(text)
        if known is None:
            self.reasons.append(text)
            known = self._reason_id[text] = -len(self.reasons)
        return known

    def constant(self, size: int, reason: str = INNER) -> Axis:
        """Return an axis of ``size`` indices that all stay."""
        key = (size, self.reason(reason))
        axis = self._constants.get(key)
        if axis is None:
            axis = self._constants[key] = np.full(size, key[1], dtype=np.int64)
            self._constant_arrays.add(id(axis))
        return axis

    def resized(self, axis: Axis, size: int) -> Axis:
        """Return a constant axis of another size that stays for the same reason."""
        reason = self.reasons[-int(axis[0]) - 1] if axis.size else INNER
        return self.constant(size, reason)

    def is_constant(self, axis: Axis) -> bool:
        """Tell whether all indices of an axis are known to stay."""
        return id(axis) in self._constant_arrays

    def why(self, text: str) -> str:
        """Return ``text`` with the operation and the module at hand."""
        return f'{text}: {self.operation}' if self.operation else text

    def why_fixed(self, param: str, dim: int, size: int) -> str:
        """Return why a dimension that was given no ids stays."""
        if param not in self._axes_of:
            return UNUSED
        if size <= 1:
            return SINGLE
        return self._fixed.get((param, dim), TABLE)

    # Edges

    def couple(self, a: Axis, b: Axis) -> Axis:
        """Make two axes live or die together, index by index; return the one to pass on."""
        if a is b:
            return a
        if self.is_constant(a):
            if not self.is_constant(b):
                self._edges.append((a, b))
            return a
        self._edges.append((a, b))
        if self.is_constant(b):
            return b
        if b.size and b.min() < 0:
            return np.where(b < 0, b, a)
        return a

    def fix(self, axis: Axis, text: str) -> None:
        """Keep all indices of an axis, and remember why."""
        if not self.is_constant(axis):
            self._edges.append((axis, self.constant(axis.size, self.why(text))))

    def hold(self, ids: Axis, reason: str) -> None:
        """Keep single indices, for a reason that was found after the walk."""
        self._edges.append((ids, np.full(ids.size, self.reason(reason), dtype=np.int64)))

    def mark(self) -> int:
        """Return what :meth:`revert` needs to take back the couplings made after this."""
        return len(self._edges)

    def revert(self, mark: int) -> None:
        """Take back the couplings made since :meth:`mark`."""
        del self._edges[mark:]

    def mix(self, axis: Axis) -> None:
        """Note that the operation at hand mixes the channels of an axis."""
        if not self.is_constant(axis):
            assert self.operation is not None
            # The length of a direction is summed over it; a cut sees to it that the weight stays.
            source = self.operation.args[0]
            if isinstance(source, Tensor) and self.weight_of(source) in self._directions:
                return
            self.mixed.append((axis, self.operation))

    # Parameters in their roles

    def weight_of(self, tensor: Tensor) -> str | None:
        """Return the parameter a tensor is, or is made of alone; None for activations."""
        return self._weights.get(id(tensor))

    def derive(self, tensor: Tensor, sources: Sequence[Tensor]) -> None:
        """Note that ``tensor`` is made of parameters alone if all of ``sources`` are."""
        if sources and id(tensor) not in self._weights:
            names = [self._weights.get(id(source)) for source in sources]
            first = names[0]
            if first is not None and None not in names:
                self._weights[id(tensor)] = first

    def use(self, tensor: Tensor | None, operand: str, extent: Sequence[int] | None = None) -> None:
        """Note what a parameter is used as, and at which extent; the first use counts."""
        if tensor is not None:
            name = self._weights.get(id(tensor))
            if name is not None:
                self.operands.setdefault(name, operand)
                if extent is not None:
                    self.extents.setdefault(name, tuple(extent))

    def count(self, attribute: str, axis: Axis) -> None:
        """Note that an attribute of the module at hand, if it has it, is the width of an axis."""
        if self.operation is not None and not self.is_constant(axis):
            self.numbers.append((self.operation.module, attribute, axis))

    def contract(self, a: Tensor, axis_a: Axis, b: Tensor, axis_b: Axis) -> None:
        """Couple two axes that are summed over together; a parameter's is one that reads."""
        self.couple(axis_a, axis_b)
        weights = [x for x, t in ((axis_a, a), (axis_b, b)) if self.weight_of(t) is not None]
        for axis in weights:
            self.read(axis)
        if not weights:
            self.mix(axis_a)

    def read(self, axis: Axis) -> None:
        """Note that a parameter's axis reads channels: they are summed over."""
        if not self.is_constant(axis):
            self._reads.append(axis)

    def macs(self, factor: int, *axes: Axis) -> None:
        """Add ``factor`` times the kept sizes of ``axes`` to the multiply-adds."""
        assert self.operation is not None
        if self.counting:
            self.terms.append(Term(factor, axes, self.operation.module))

    def made(self, sources: Sequence[Tensor]) -> None:
        """Count the outputs of the operation at hand that are new memory, not views of sources."""
        operation = self.operation
        assert operation is not None
        if self.counting and _makes_memory(operation.func):
            for output in operation.outputs:
                if output.numel() and not any(output is source for source in sources):
                    self.activations.append(Term(1, self.axes(output), operation.module))

    # Dimensions that a split makes

    def next_split(self) -> SplitKey:
        """Return the name of the split at hand, the same in every walk over the tape."""
        step, number = self._split
        self._split = (self.step, number + 1 if step == self.step else 0)
        return self._split

    def mark_part(self, axis: Axis, split: SplitKey, part: int) -> Axis:
        """Return an axis that is known as one part of a split, wherever it comes whole."""
        marked = axis
        if self.is_constant(axis):
            marked = axis.copy()
            self._constant_arrays.add(id(marked))
        self._parts[id(marked)] = (marked, split, part)
        return marked

    def pass_mark(self, axis: Axis, sources: Sequence[Axis]) -> Axis:
        """Return ``axis`` as the part of a split that just one of ``sources`` is known as."""
        marks = [self._parts[id(source)] for source in sources if id(source) in self._parts]
        return self.mark_part(axis, *marks[0][1:]) if len(marks) == 1 else axis

    def attend(self, heads: Iterable[Axis], widths: Iterable[Axis]) -> None:
        """Note an attention: which axes count its heads, and which are as wide as a head."""
        for axes, found in ((heads, self.heads), (widths, self.head_widths)):
            for axis in axes:
                if id(axis) in self._parts:
                    _, split, part = self._parts[id(axis)]
                    found[split] = part

    # Merged dimensions

    def remember_factors(self, merged: Axis, factors: tuple[Axis, ...]) -> None:
        """Keep what a merged axis consists of, so that a later split can restore it."""
        self._factors[id(merged)] = (merged, factors)

    def factors_of(self, merged: Axis) -> tuple[Axis, ...] | None:
        """Return what a merged axis consists of, if it was remembered."""
        entry = self._factors.get(id(merged))
        return entry[1] if entry else None

    # Results

    def edges(self) -> tuple[Axis, Axis]:
        """Return all edges as two arrays of node ids."""
        if not self._edges:
            empty = np.empty(0, dtype=np.int64)
            return empty, empty
        return (
            np.concatenate([a for a, _ in self._edges]),
            np.concatenate([b for _, b in self._edges]),
        )

    def reads(self) -> Axis:
        """Return the ids of parameter indices that read channels."""
        return np.concatenate(self._reads) if self._reads else np.empty(0, dtype=np.int64)
