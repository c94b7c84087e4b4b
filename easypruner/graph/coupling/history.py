"""The history of a propagation: which operation coupled what, and which read a parameter first."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

from easypruner.graph.recording.tape import Operation, name_of


class History:
    """How many edges, and dimensions of parameters with axes, there were after each operation.

    It is written while rules run, so it keeps numbers only, and no tensor alive.
    """

    def __init__(self) -> None:
        self._operations: list[tuple[Any, str] | None] = []
        self._edges: list[int] = []
        self._owners: list[int] = []

    def note(self, operation: Operation | None, edges: int, owners: int) -> None:
        """Note the numbers after an operation; None for what happens between two passes.

        Args:
            operation: the operation.
            edges: the number of calls that made edges so far.
            owners: the number of dimensions of parameters that have axes so far.
        """
        self._operations.append(None if operation is None else (operation.func, operation.module))
        self._edges.append(edges)
        self._owners.append(owners)

    def coupling_operation(self, edge: int) -> tuple[str, str] | None:
        """Return (name, module) of the operation that made an edge; None if a trial did.

        Args:
            edge: the number of the call that made it.
        """
        return self._find(self._edges, edge)

    def reading_operation(self, owner: int) -> tuple[str, str] | None:
        """Return (name, module) of the operation that first read a dimension of a parameter.

        Args:
            owner: the number of the dimension, in the order in which they got axes.
        """
        return self._find(self._owners, owner)

    def calls_of(self, *names: str) -> list[range]:
        """Return the numbers of the calls that made edges, for each operation of some names."""
        starts = [0, *self._edges]
        return [
            range(start, end)
            for operation, start, end in zip(self._operations, starts, self._edges, strict=False)
            if operation is not None and name_of(operation[0]).removesuffix('_') in names
        ]

    @property
    def edges(self) -> int:
        """The number of calls that operations made. Trials made the others."""
        return self._edges[-1] if self._edges else 0

    def _find(self, counts: list[int], number: int) -> tuple[str, str] | None:
        position = bisect_right(counts, number)
        found = self._operations[position] if position < len(self._operations) else None
        return None if found is None else (name_of(found[0]), found[1])
