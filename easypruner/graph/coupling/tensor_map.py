"""A mapping from tensors to values that compares tensors by identity."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

from torch import Tensor

Value = TypeVar('Value')


class TensorMap(Generic[Value]):
    """A mapping whose keys are tensors, compared by identity, because ``==`` is elementwise.

    It does not keep its keys alive. The owner of the map must own the tensors as well.

    >>> import torch
    >>> x, y = torch.zeros(2), torch.zeros(2)
    >>> names = TensorMap([(x, 'x')])
    >>> names[x], x in names, y in names
    ('x', True, False)
    """

    __slots__ = ('_values',)

    def __init__(self, entries: Iterable[tuple[Tensor, Value]] = ()) -> None:
        self._values = {id(tensor): value for tensor, value in entries}

    def __contains__(self, tensor: Tensor) -> bool:
        return id(tensor) in self._values

    def __getitem__(self, tensor: Tensor) -> Value:
        return self._values[id(tensor)]

    def __setitem__(self, tensor: Tensor, value: Value) -> None:
        self._values[id(tensor)] = value

    def discard(self, tensor: Tensor) -> None:
        """Remove a tensor, if the map has it."""
        self._values.pop(id(tensor), None)

    def values(self) -> Iterable[Value]:
        """Return the values of all tensors."""
        return self._values.values()

    def get(self, tensor: Tensor) -> Value | None:
        """Return the value of a tensor; None if it has none."""
        return self._values.get(id(tensor))
