"""Memory: which tensors of a tape are views of others, and which parts of a tensor are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
from torch import Tensor

from easypruner.graph.coupling.layout import Bools
from easypruner.graph.coupling.tensor_map import TensorMap
from easypruner.graph.recording.tape import Operation, Tape

_VIEWS = frozenset(
    ('view', '_reshape_alias', 'reshape', 'flatten', 'unflatten', 'permute', 'transpose', 't',
     'unsqueeze', 'squeeze', 'expand', 'slice', 'narrow', 'select', 'unbind', 'split', 'chunk',
     'split_with_sizes', 'detach', 'alias', '_to_copy', 'to')
)  # fmt: skip
"""Operations whose output may lie in the memory of their input, such as ``x.float()``."""

_WINDOWS = frozenset(('slice', 'slice_copy', 'narrow'))


class Memory:
    """What the tapes say of the memory of tensors, before any rule runs.

    Args:
        tapes: the operations.
    """

    def __init__(self, tapes: Sequence[Tape]) -> None:
        self._tapes = tapes

    @cached_property
    def windows(self) -> TensorMap[set[tuple[int, int]]]:
        """Tensor -> (dimension, size) of each window of neighbours that is sliced from it."""
        found: TensorMap[set[tuple[int, int]]] = TensorMap()
        for operation in self._operations():
            if operation.name in _WINDOWS:
                source, (dim,) = operation.tensors[0], operation.dims()
                size = operation.output.shape[dim]
                if size != source.shape[dim] and operation.argument('step') in (None, 1):
                    if source not in found:
                        found[source] = set()
                    found[source].add((dim, size))
        return found

    def with_bases(self, tensor: Tensor) -> Iterator[Tensor]:
        """Yield a tensor, and those in whose memory it may lie."""
        base: Tensor | None = tensor
        while base is not None:
            yield base
            base = self._viewed.get(base)

    def unread(self, tensor: Tensor, dim: int) -> Bools:
        """Return for each index of a dimension whether no operation reads it.

        Those of a parameter are its own on all tapes.
        """
        same = self._parameters.get(tensor) or (tensor,)
        missing = np.ones(tensor.shape[dim], dtype=bool)
        for each in same:
            if each in self._read_whole:
                missing[:] = False
            for operation in self._windows_of.get(each) or ():
                (own,) = operation.dims()
                missing[window_of(operation) if own == dim else slice(None)] = False
        return missing

    @cached_property
    def _viewed(self) -> TensorMap[Tensor]:
        """Tensor -> the one in whose memory it may lie."""
        # An operation with nothing to do, such as x.to(x.dtype), returns its input.
        return TensorMap(
            (output, operation.tensors[0])
            for operation in self._operations()
            # A number that an operation takes as a tensor has no memory.
            if operation.name in _VIEWS and operation.tensors
            for output in operation.outputs
            if output is not operation.tensors[0]
        )

    @cached_property
    def _parameters(self) -> TensorMap[tuple[Tensor, ...]]:
        """Parameter or buffer -> the tensors that stand for it on the tapes."""
        names = {name for tape in self._tapes for name in tape.parameters}
        same = [
            tuple(tape.parameters[name] for tape in self._tapes if name in tape.parameters)
            for name in names
        ]
        return TensorMap((tensor, tensors) for tensors in same for tensor in tensors)

    @cached_property
    def _windows_of(self) -> TensorMap[list[Operation]]:
        found: TensorMap[list[Operation]] = TensorMap()
        for operation in self._operations():
            if operation.name in _WINDOWS:
                source = operation.tensors[0]
                if source not in found:
                    found[source] = []
                found[source].append(operation)
        return found

    @cached_property
    def _read_whole(self) -> TensorMap[bool]:
        return TensorMap(
            (tensor, True)
            for operation in self._operations()
            if operation.name not in _WINDOWS
            for tensor in operation.tensors
        )

    def _operations(self) -> Iterator[Operation]:
        return (operation for tape in self._tapes for operation in tape.operations)


def window_of(operation: Operation) -> slice:
    """Return the indices that a slice takes of its dimension."""
    (dim,) = operation.dims()
    size, left = operation.tensors[0].shape[dim], operation.output.shape[dim]
    start, _, step = slice(*map(operation.argument, ('start', 'end', 'step'))).indices(size)
    return slice(start, start + left * step, step)
