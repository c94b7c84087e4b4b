"""Axes: one node id for each index of each dimension of each tensor.

Every dimension of every parameter has its own ids. The rule of an operation hands the axes of its
inputs on to its outputs, and couples axes that must lose the same indices. A negative id is not a
node but a reason: an index with such an id stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from easypruner.base.nested import tensors_in
from easypruner.graph.coupling.tensor_map import TensorMap
from easypruner.graph.recording.tape import Operation, Tape

Ids = npt.NDArray[np.int64]

Dim = tuple[str, int]
"""A dimension of a parameter or buffer: its dotted name, and the number of the dimension."""

Staying = Mapping[Dim, Sequence[str | None]]
"""Dimension -> for each index the reason for which it is known to stay, or None."""

SplitKey = tuple[int, int]
"""A split of one dimension into several: the numbers of its operation and of it within that."""

CONSTANT = 'a constant tensor'
INPUT = 'an input of the model'
OUTPUT = 'an output of the model'
INNER = 'a spatial, batch or sequence extent, which no parameter decides'
MERGED = 'two free dimensions are merged'
SHARED = 'a head of keys and values that several heads of queries share'
SINGLE = 'has a single channel'
SPLIT = 'channels are split into dimensions, of which this one keeps its size'
TABLE = 'a table of integers'
UNUSED = 'not used in the forward pass'
UNREGISTERED = 'read by a module that the network does not register, as one in a plain list'


class Part(NamedTuple):
    """One of the dimensions that a split makes.

    Attributes:
        split: the split.
        number: the position of the dimension among them.
    """

    split: SplitKey
    number: int


@dataclass(frozen=True, slots=True, eq=False)
class Axis:
    """One dimension of a tensor.

    Two axes are equal only if they are the same object. A constant axis stays constant if it is
    sliced, repeated or resized.

    Attributes:
        ids: the id of each index: that of its node, or that of the reason for which it stays, which
            is negative.
        reason: the id of the reason for which all indices stay; None if some may go, or if that is
            not known yet.
        part: the split that made the axis, if one did.
        factors: the axes that were merged into this one, so that a later split can restore them.
        copy: the key of the expansion that made the axis of a single index, if one did.

    >>> axis = Axis(np.arange(4))
    >>> axis[1:].tiled(2).ids
    array([1, 2, 3, 1, 2, 3])
    >>> stays = Axis(np.full(4, -1), reason=-1)
    >>> stays[1:].is_constant, stays.resized(2).ids
    (True, array([-1, -1]))
    """

    ids: Ids
    reason: int | None = None
    part: Part | None = None
    factors: tuple[Axis, ...] = ()
    copy: SplitKey | None = None

    @classmethod
    def of(cls, ids: Ids) -> Axis:
        """Return the axis of ``ids``. It is constant if all of them are reasons."""
        return cls(ids, int(ids[0]) if ids.size and ids.max() < 0 else None)

    @classmethod
    def joined(cls, axes: Sequence[Axis]) -> Axis:
        """Return the concatenation of several axes."""
        if all(axis.is_constant for axis in axes):
            return axes[0].resized(sum(axis.size for axis in axes))
        return cls(np.concatenate([axis.ids for axis in axes]))

    @property
    def size(self) -> int:
        """The number of indices."""
        return self.ids.size

    @property
    def is_constant(self) -> bool:
        """Whether all indices are known to stay."""
        return self.reason is not None

    @property
    def nodes(self) -> Ids:
        """The ids without those that are reasons."""
        return self.ids[self.ids >= 0]

    @property
    def dimensions(self) -> tuple[Axis, ...]:
        """The axes whose kept sizes multiply to that of this one: itself, or what was merged.

        Where several of the merged axes may lose indices, each of them says what it keeps.
        """
        if self.is_constant or not self.factors or self.ids.max() >= 0:
            return (self,)
        return tuple(axis for factor in self.factors for axis in factor.dimensions)

    @property
    def is_made(self) -> bool:
        """Whether the axis is a part of a split, or merged of others."""
        return self.part is not None or bool(self.factors)

    @property
    def parts(self) -> list[tuple[Part, int]]:
        """The parts of splits that were merged into this axis, or that it is, with their sizes."""
        merged = [entry for factor in self.factors for entry in factor.parts]
        return merged or ([] if self.part is None else [(self.part, self.size)])

    @property
    def copies(self) -> list[Axis]:
        """The axes that expansions made among those that were merged into this one, or itself."""
        own = [self] if self.copy is not None and not self.is_constant else []
        return own + [axis for factor in self.factors for axis in factor.copies]

    def __getitem__(self, window: slice) -> Axis:
        return (
            Axis(self.ids[window], self.reason) if self.is_constant else Axis.of(self.ids[window])
        )

    def tiled(self, count: int) -> Axis:
        """Return ``count`` copies of the axis, concatenated: 0 1 0 1, as of ``cat([x, x])``."""
        return Axis(np.tile(self.ids, count), self.reason, self.part)

    def repeated(self, count: int) -> Axis:
        """Return the axis with each index repeated: 0 0 1 1, as ``repeat_interleave`` does."""
        return Axis(np.repeat(self.ids, count), self.reason, self.part)

    def transposed(self, rows: int) -> Axis:
        """Return the axis with its indices written in ``rows`` rows and read by columns.

        >>> Axis(np.arange(6)).transposed(2).ids
        array([0, 3, 1, 4, 2, 5])
        """
        return Axis(self.runs(rows).T.reshape(-1), self.reason)

    def runs(self, count: int) -> Ids:
        """Return the ids as ``count`` equal runs, one in each row.

        Raises:
            ValueError: the axis has no such runs.
        """
        if count < 1 or self.size % count:
            raise ValueError(f'an axis of size {self.size} has no {count} equal runs')
        return self.ids.reshape(count, -1)

    def resized(self, size: int) -> Axis:
        """Return an axis of ``size`` indices that stay for the reason of this constant axis."""
        assert self.reason is not None, 'an axis that is not constant has one size'
        return Axis(np.full(size, self.reason, dtype=np.int64), self.reason)

    def marked(self, part: Part) -> Axis:
        """Return the axis as a part of a split."""
        return Axis(self.ids, self.reason, part, self.factors, self.copy)


class Reasons:
    """The reasons for which indices stay, in the order in which they were first given.

    Attributes:
        texts: the texts of the reasons. The first one has the id ``-1``.
    """

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._ids: dict[str, int] = {}
        self._axes: dict[tuple[int, str], Axis] = {}

    def id_of(self, text: str) -> int:
        """Return the id of a reason, which is negative."""
        if text not in self._ids:
            self.texts.append(text)
            self._ids[text] = -len(self.texts)
        return self._ids[text]

    def make_axis(self, size: int, text: str) -> Axis:
        """Return an axis of ``size`` indices that all stay."""
        axis = self._axes.get((size, text))
        if axis is None:
            number = self.id_of(text)
            axis = Axis(np.full(size, number, dtype=np.int64), number)
            self._axes[size, text] = axis
        return axis


class Owner(NamedTuple):
    """A dimension of a parameter or buffer, and its axis, which may be that of another tensor.

    Attributes:
        param: the dotted name of the parameter or buffer.
        dim: the dimension.
        axis: its axis.
        reads: whether the dimension reads channels. It is None if the axis is the dimension's own:
            then what the rules noted for its nodes decides.
    """

    param: str
    dim: int
    axis: Axis
    reads: bool | None = None


_PRODUCTS = frozenset(('mm', 'addmm', 'bmm', 'baddbmm', 'addbmm', 'matmul', 'linear'))


class TensorAxes:
    """The axes of the tensors on the tapes.

    Attributes:
        reasons: the reasons for which indices stay.
        owners: dimension -> its owner, in the order in which the operations read them.
        nodes: the number of node ids.

    Args:
        tapes: the operations.
        unprunable: dimension of a parameter or buffer -> the reason for which it stays whole.
        staying: the dimensions of which some indices are known to stay.
    """

    def __init__(
        self, tapes: Sequence[Tape], unprunable: Mapping[Dim, str], staying: Staying
    ) -> None:
        self.reasons = Reasons()
        self.owners: dict[Dim, Owner] = {}
        self.nodes = 0
        self._unprunable = unprunable
        self._staying = staying
        self._of_parameter: dict[str, tuple[Axis, ...]] = {}
        self._constants: dict[int, Tensor] = {}
        named = [(tensor, name) for tape in tapes for name, tensor in tape.parameters.items()]
        self._names = TensorMap(named)
        self._made_of = TensorMap(named)
        self._multiplied: TensorMap[bool] = TensorMap()
        self._of: TensorMap[tuple[Axis, ...]] = TensorMap(
            (tensor, self._make_constants(tensor, INPUT))
            for tape in tapes
            for _, tensor in tensors_in(tape.example_inputs)
        )

    def of(self, tensor: Tensor) -> tuple[Axis, ...]:
        """Return the axes of a tensor. A tensor that no operation made is constant."""
        axes = self._of.get(tensor)
        return self.adopt(tensor, {}) if axes is None else axes

    def of_parameter(self, name: str) -> tuple[Axis, ...] | None:
        """Return the axes of a parameter or buffer; None if no operation reads it."""
        return self._of_parameter.get(name)

    def of_parameters(self) -> Iterable[Axis]:
        """Return the axes of all parameters and buffers that operations read."""
        return chain.from_iterable(self._of_parameter.values())

    def of_tensors(self) -> Iterator[Axis]:
        """Return the axes of all tensors that have some so far, each once."""
        return iter(dict.fromkeys(chain.from_iterable(self._of.values())))

    def assign(self, tensor: Tensor, axes: tuple[Axis, ...]) -> None:
        """Set the axes of an operation's output."""
        self._of[tensor] = axes

    def are_known(self, tensor: Tensor) -> bool:
        """Return whether a tensor already has axes, or will get them when they are read."""
        return tensor in self._of or tensor in self._names

    def adopt(
        self, tensor: Tensor, given: Mapping[int, Axis], reads: int | None = None
    ) -> tuple[Axis, ...]:
        """Return the axes of a tensor, after it adopted axes of other tensors if it can.

        A parameter can do so if no operation read it before. That saves the nodes of its own axes,
        and the edges that would couple them with those of the others. A table of integers loses
        indices only of axes that it adopts, such as zero points, of which each channel has one.

        Args:
            tensor: usually a parameter or buffer.
            given: dimension -> the axis to adopt, of the same size.
            reads: the dimension that reads channels; None if none does.
        """
        axes = self._of.get(tensor)
        if axes is None:
            axes = self._of[tensor] = self._find(tensor, given, reads)
        return axes

    def is_adopted(self, tensor: Tensor, dim: int) -> bool:
        """Return whether a dimension of a tensor adopted the axis of another tensor."""
        owner = self.owners.get((self._names.get(tensor) or '', dim))
        return owner is not None and owner.reads is not None

    def make_free(self, size: int) -> Axis:
        """Return an axis of new nodes."""
        start = self.nodes
        self.nodes += size
        return Axis(np.arange(start, self.nodes))

    def parameter_of(self, tensor: Tensor) -> str | None:
        """Return the parameter that a tensor is, or from which alone it is computed; else None."""
        return self._made_of.get(tensor)

    def is_multiplied(self, tensor: Tensor) -> bool:
        """Return whether a tensor that is computed from parameters alone contains their product."""
        return tensor in self._multiplied

    def derive(self, operation: Operation) -> bool:
        """Note that an operation's outputs are computed from parameters alone, if they are.

        Returns:
            Whether they are computed from several tensors of that kind.
        """
        first: str | None = None
        for tensor in operation.tensors:
            name = self._made_of.get(tensor)
            if name is None:
                return False
            first = first or name
        if first is not None:
            multiplies = operation.name in _PRODUCTS or any(
                map(self.is_multiplied, operation.tensors)
            )
            for output in operation.outputs:
                if output not in self._made_of:
                    self._made_of[output] = first
                if multiplies:
                    self._multiplied[output] = True
        return len(operation.tensors) > 1

    def forget_origin(self, tensor: Tensor) -> None:
        """Note that a tensor has values that are not computed from parameters alone."""
        self._made_of.discard(tensor)

    def derive_from(self, output: Tensor, tensor: Tensor) -> None:
        """Note that an output has entries of another tensor only."""
        name = self._made_of.get(tensor)
        if name is not None:
            self._made_of[output] = name

    def explain_unowned(self, param: str, dim: int, size: int, tensor: Tensor) -> str:
        """Return why a dimension without an owner stays.

        Args:
            param: the name of the parameter or buffer.
            dim: the dimension.
            size: its size.
            tensor: the parameter or buffer itself.
        """
        if param not in self._of_parameter:
            return UNREGISTERED if id(tensor) in self._constants else UNUSED
        if size <= 1:
            return SINGLE
        return self._unprunable.get((param, dim), TABLE)

    def _find(
        self, tensor: Tensor, given: Mapping[int, Axis], reads: int | None
    ) -> tuple[Axis, ...]:
        name = self._names.get(tensor)
        if name is None:
            self._constants[id(tensor)] = tensor
            return self._make_constants(tensor, CONSTANT)
        if name not in self._of_parameter:
            counts = not (tensor.is_floating_point() or tensor.is_complex())
            self._of_parameter[name] = tuple(
                self.reasons.make_axis(size, TABLE)
                if counts and dim not in given
                else self._make_own(name, dim, size, given.get(dim), reads == dim)
                for dim, size in enumerate(tensor.shape)
            )
        return self._of_parameter[name]

    def _make_constants(self, tensor: Tensor, reason: str) -> tuple[Axis, ...]:
        return tuple(self.reasons.make_axis(size, reason) for size in tensor.shape)

    def _make_own(self, name: str, dim: int, size: int, given: Axis | None, reads: bool) -> Axis:
        """Return the axis of a dimension: the given one, or its own; a constant if it must stay."""
        reason = SINGLE if size <= 1 else self._unprunable.get((name, dim))
        if reason is not None:
            return self.reasons.make_axis(size, reason)
        stays = self._staying.get((name, dim))
        if stays is not None:
            ids = [self.reasons.id_of(text) if text else -1 for text in stays]
            free = np.array([text is None for text in stays])
            given, axis = None, Axis(np.where(free, self.make_free(size).ids, ids))
        else:
            axis = self.make_free(size) if given is None else given
        self.owners[name, dim] = Owner(name, dim, axis, None if given is None else reads)
        return axis
