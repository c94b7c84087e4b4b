"""Templates: tensors of which code takes only the shape, as ``x[:, :1]`` in ``ones_like``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from easypruner.graph.recording.tape import Operation, Tape

_SHAPED = frozenset({
    'zeros_like', 'ones_like', 'empty_like', 'full_like', 'rand_like', 'randn_like',
    'randint_like', 'new_zeros', 'new_ones', 'new_full', 'new_empty', 'new_empty_strided',
})  # fmt: skip
"""Operations that read no value of their tensor."""


class Templates:
    """The operations that make tensors whose values nothing reads.

    Args:
        tapes: the operations.
    """

    def __init__(self, tapes: Sequence[Tape]) -> None:
        self._tapes = tapes

    def has(self, operation: Operation) -> bool:
        """Return whether nothing reads a value of what an operation makes."""
        return operation in self._found

    @cached_property
    def _found(self) -> set[Operation]:
        return {operation for tape in self._tapes for operation in _find(tape)}


def _find(tape: Tape) -> set[Operation]:
    read = {id(tensor) for _, tensor in tape.outputs}
    found: set[Operation] = set()
    for operation in reversed(tape.operations):
        # Code gets a number from an operation that makes no tensor.
        is_read = not operation.outputs or any(id(t) in read for t in operation.outputs)
        if not is_read and not operation.func._schema.is_mutable:
            found.add(operation)
        elif operation.name not in _SHAPED:
            read.update(map(id, operation.tensors))
    return found
